"""What runs inside the appliance."""
