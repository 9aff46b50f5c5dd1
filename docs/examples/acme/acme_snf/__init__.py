"""A plugin for every extension point of snf-core, as small as it can be and still complete."""
