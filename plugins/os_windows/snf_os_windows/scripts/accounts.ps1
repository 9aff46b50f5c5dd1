# Sets passwords to $secret and enables accounts, through the directory interface of the local
# accounts: no command line holds the secret, nor does a parameter, which could be logged.
$ErrorActionPreference = 'Stop'
$state = @{ Failed = 0 }

# Setup may have given the built-in administrator, whose RID is 500, another name.
function Get-Administrator([string]$Known) {
    $filter = "LocalAccount = True AND SID LIKE 'S-1-5-21-%-500'"
    try {
        $found = Get-WmiObject Win32_UserAccount -Filter $filter | Select-Object -First 1
        if ($found) { return $found.Name }
    } catch { }
    return $Known
}

function Set-Password([string]$Name) {
    try {
        $user = [ADSI]"WinNT://./$Name,user"
        $null = $user.psbase.Invoke('SetPassword', $secret)
        "the password of $Name is set"
    } catch {
        "the password of $Name is not set: $($_.Exception.GetBaseException().Message)"
        $state.Failed = 1
    }
}

function Enable-Account([string]$Name) {
    try {
        $user = [ADSI]"WinNT://./$Name,user"
        # With ADS_UF_DONT_EXPIRE_PASSWD, without ADS_UF_ACCOUNTDISABLE, ADS_UF_LOCKOUT and
        # ADS_UF_PASSWD_NOTREQD.
        $flags = [int]$user.psbase.InvokeGet('UserFlags') -bor 0x10000 -band (-bnot 0x32)
        $user.psbase.InvokeSet('UserFlags', $flags)
        $user.psbase.CommitChanges()
        $tool = Join-Path $env:SystemRoot 'System32\net.exe'
        $said = & $tool user $Name /active:yes /expires:never | Out-String
        if ($LASTEXITCODE -ne 0) { throw "net user ($LASTEXITCODE): $said" }
        "$Name is enabled"
    } catch {
        "$Name is not enabled: $($_.Exception.GetBaseException().Message)"
        $state.Failed = 1
    }
}
