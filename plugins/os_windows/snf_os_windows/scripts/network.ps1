# Configures NICs, found by their MAC addresses, by netsh: it is there since Windows 7, and what it
# sets stays. NICs are named to it by their indices, as names are localised.
$ErrorActionPreference = 'Stop'
$state = @{ Failed = 0; Deadline = [DateTime]::UtcNow.AddSeconds(90) }
$netsh = Join-Path $env:SystemRoot 'System32\netsh.exe'

function Invoke-Netsh {
    $said = & $netsh $args | Out-String
    if ($LASTEXITCODE -ne 0) {
        "netsh $args ($LASTEXITCODE): $($said.Trim())"
        $state.Failed = 1
    }
}

# Drivers may still be at work. Of two adapters with one address, an emulated one of Xen and its
# paravirtual twin, that which is connected counts.
function Find-Nic([string]$Mac) {
    while ($true) {
        try {
            $found = Get-WmiObject Win32_NetworkAdapter -Filter "MACAddress = '$Mac'" |
                Where-Object { $_.NetConnectionID } |
                Sort-Object { $_.NetConnectionStatus -ne 2 } |
                Select-Object -First 1
            if ($found) { return $found.InterfaceIndex }
        } catch { }
        if ([DateTime]::UtcNow -gt $state.Deadline) { return }
        Start-Sleep -Seconds 2
    }
}

function Set-Dynamic([int]$Index) {
    $filter = "InterfaceIndex = $Index"
    $now = Get-WmiObject Win32_NetworkAdapterConfiguration -Filter $filter
    # netsh calls it an error to say so twice.
    if (-not $now.DHCPEnabled) {
        Invoke-Netsh interface ipv4 set address "name=$Index" source=dhcp
    }
}

function Set-Static([int]$Index, [hashtable]$Nic) {
    $gateway = if ($Nic.Gateway -and -not $Nic.OnLink) { $Nic.Gateway } else { 'none' }
    Invoke-Netsh interface ipv4 set address "name=$Index" source=static `
        "address=$($Nic.Address)" "mask=$($Nic.Mask)" "gateway=$gateway"
    if (-not $Nic.OnLink) { return }
    # The gateway is outside the subnet: it is said to be on the link before it is used.
    foreach ($prefix in "$($Nic.Gateway)/32", '0.0.0.0/0') {
        $null = & $netsh interface ipv4 delete route "prefix=$prefix" "interface=$Index"
    }
    Invoke-Netsh interface ipv4 add route "prefix=$($Nic.Gateway)/32" "interface=$Index"
    Invoke-Netsh interface ipv4 add route prefix=0.0.0.0/0 "interface=$Index" `
        "nexthop=$($Nic.Gateway)"
}

function Set-NameServer([int]$Index, [string]$Family, [string[]]$Servers) {
    $position = 0
    foreach ($server in $Servers) {
        $position += 1
        if ($position -eq 1) {
            Invoke-Netsh interface $Family set dnsservers "name=$Index" source=static `
                "address=$server" register=primary validate=no
        } else {
            Invoke-Netsh interface $Family add dnsservers "name=$Index" "address=$server" `
                "index=$position" validate=no
        }
    }
}

# What a router announces decides, where one does; this is for before and without.
function Set-Ipv6([int]$Index, [string]$Kind) {
    $router = if ($Kind -eq 'none') { 'disabled' } else { 'enabled' }
    $managed = if ($Kind -eq 'dhcp') { 'enabled' } else { 'disabled' }
    $other = if ($Kind -like '*dhcp') { 'enabled' } else { 'disabled' }
    Invoke-Netsh interface ipv6 set interface "interface=$Index" "routerdiscovery=$router" `
        "managedaddress=$managed" "otherstateful=$other"
}

function Set-Nic([hashtable]$Nic) {
    $index = Find-Nic $Nic.Mac
    if (-not $index) {
        "there is no NIC with the MAC address $($Nic.Mac)"
        $state.Failed = 1
        return
    }
    try {
        if ($Nic.Ipv4 -eq 'static') { Set-Static $index $Nic }
        if ($Nic.Ipv4 -eq 'dhcp') { Set-Dynamic $index }
        Set-Ipv6 $index $Nic.Ipv6
        Set-NameServer $index ipv4 $Nic.Servers
        Set-NameServer $index ipv6 $Nic.Servers6
        if ($Nic.Mtu) {
            Invoke-Netsh interface ipv4 set subinterface "interface=$index" "mtu=$($Nic.Mtu)" `
                store=persistent
        }
        # RFC 8200, section 5: IPv6 takes no less.
        if ($Nic.Mtu -ge 1280) {
            Invoke-Netsh interface ipv6 set subinterface "interface=$index" "mtu=$($Nic.Mtu)" `
                store=persistent
        }
        "the NIC $($Nic.Mac) is number $index"
    } catch {
        "the NIC $($Nic.Mac): $($_.Exception.Message)"
        $state.Failed = 1
    }
}

# The network knows a guest by the addresses that follow from its MAC addresses.
function Set-StableAddress {
    Invoke-Netsh interface ipv6 set global randomizeidentifiers=disabled store=persistent
    Invoke-Netsh interface ipv6 set privacy state=disabled store=persistent
}

function Set-SearchList([string]$Domains) {
    $key = 'HKLM:\SYSTEM\CurrentControlSet\Services\Tcpip\Parameters'
    Set-ItemProperty $key SearchList $Domains
}
