# Runs the fragments beside it in the order of their names, and tidies up when Setup is done.
# Setup must never fail because of it, so it ends well whatever happens.
param([string]$Phase)

$ErrorActionPreference = 'Continue'
$here = Join-Path $env:SystemRoot 'SnfScripts'
$tools = Join-Path $env:SystemRoot 'System32'
$log = Join-Path $env:SystemRoot 'Panther\snf-first-boot.log'
$limit = 300
$answers = @(
    "$env:SystemDrive\unattend.xml",
    "$env:SystemDrive\autounattend.xml",
    "$env:SystemRoot\Panther\unattend.xml",
    "$env:SystemRoot\Panther\autounattend.xml",
    "$env:SystemRoot\Panther\Unattend\unattend.xml",
    "$env:SystemRoot\Panther\Unattend\autounattend.xml"
)
$complete = "$env:SystemRoot\Setup\Scripts\SetupComplete.cmd"
$made = @("$env:SystemRoot\Panther\Unattend", "$env:SystemRoot\Setup\Scripts")
$runOnce = 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\RunOnce'

function Write-Log([string]$Text) {
    $line = '{0}Z {1}: {2}' -f [DateTime]::UtcNow.ToString('s'), $Phase, $Text
    try { [IO.File]::AppendAllText($log, "$line`r`n") } catch { }
}

function Invoke-Tool([string]$Name, [string[]]$Words) {
    $said = & (Join-Path $tools $Name) $Words 2>&1 | Out-String
    if ($LASTEXITCODE -ne 0) { Write-Log "$Name $Words ($LASTEXITCODE): $($said.Trim())" }
}

function Reset-Permission([string]$Path) {
    if (Test-Path -LiteralPath $Path) { Invoke-Tool 'icacls.exe' @($Path, '/reset', '/c', '/q') }
}

# What the appliance makes, everybody may read and write. Accounts are named by their SIDs
# (SYSTEM, and the administrators), as their names are localised.
function Protect-Path([string]$Path, [string]$Inheritance) {
    if (-not (Test-Path -LiteralPath $Path)) { return }
    Invoke-Tool 'icacls.exe' @($Path, '/reset', '/t', '/c', '/q')
    Invoke-Tool 'icacls.exe' @(
        $Path, '/inheritance:r', '/grant:r', "*S-1-5-18:$($Inheritance)F",
        "*S-1-5-32-544:$($Inheritance)F", '/c', '/q'
    )
}

function Remove-Secret([string]$Path) {
    if (-not (Test-Path -LiteralPath $Path)) { return }
    try {
        [IO.File]::SetAttributes($Path, 'Normal')
        $noise = New-Object byte[] (New-Object IO.FileInfo $Path).Length
        (New-Object Security.Cryptography.RNGCryptoServiceProvider).GetBytes($noise)
        # By typed values: of texts, PowerShell could take the last for a truth value.
        $stream = New-Object IO.FileStream -ArgumentList @(
            $Path, [IO.FileMode]::Open, [IO.FileAccess]::Write, [IO.FileShare]::None, 4096,
            [IO.FileOptions]::WriteThrough
        )
        try { $stream.Write($noise, 0, $noise.Length) } finally { $stream.Close() }
    } catch { Write-Log "$Path is not overwritten: $($_.Exception.Message)" }
    try { [IO.File]::Delete($Path) } catch { Write-Log "$Path stays: $($_.Exception.Message)" }
}

function Write-Captured([string]$Path) {
    try { $said = [IO.File]::ReadAllText($Path).Trim() } catch { return }
    if ($said) { Write-Log ($said -replace '\r?\n', "`r`n    ") }
}

# Not by -File, which execution policies of the image could forbid.
function Invoke-Fragment([IO.FileInfo]$File) {
    $output = Join-Path $here 'output.txt'
    $errors = Join-Path $here 'errors.txt'
    $quoted = $File.FullName.Replace("'", "''")
    $command = "& ([ScriptBlock]::Create([IO.File]::ReadAllText('$quoted')))"
    $words = '-NoProfile -NonInteractive -InputFormat None -ExecutionPolicy Bypass ' +
        "-Command `"$command`""
    $code = 1
    try {
        $process = Start-Process -FilePath (Join-Path $PSHOME 'powershell.exe') `
            -ArgumentList $words -NoNewWindow -PassThru `
            -RedirectStandardOutput $output -RedirectStandardError $errors
        # Without its handle, a process that has ended has no exit code.
        $null = $process.Handle
        if ($process.WaitForExit(1000 * $limit)) {
            $code = $process.ExitCode
        } else {
            Write-Log "$($File.Name) has not ended after $limit seconds"
            Invoke-Tool 'taskkill.exe' @('/f', '/t', '/pid', "$($process.Id)")
        }
    } catch { Write-Log "$($File.Name) does not run: $($_.Exception.Message)" }
    Write-Captured $output
    # PowerShell quotes the lines at fault there, and a line of a secret one may hold the secret.
    if ($File.Name -notlike '*.secret.ps1') { Write-Captured $errors }
    Remove-Secret $output
    Remove-Secret $errors
    return $code
}

function Get-Fragment {
    Get-ChildItem $here |
        Where-Object { $_.Name -match '^\d\d-[a-z-]+(\.secret)?(\.again)?\.ps1$' } |
        Sort-Object Name
}

function Invoke-All {
    foreach ($file in @(Get-Fragment)) {
        $code = Invoke-Fragment $file
        $secret = $file.Name -like '*.secret.*'
        Write-Log "$($file.Name): $(if ($code -eq 0) { 'done' } else { "failed ($code)" })"
        if ($code -eq 0) {
            if ($secret) {
                # In this order: without its secret, it would fail the next time.
                Remove-Secret $file.FullName
                Remove-Secret ([IO.Path]::ChangeExtension($file.FullName, '.txt'))
            } elseif ($file.Name -notlike '*.again.*') { Remove-Item -LiteralPath $file.FullName }
        } elseif ($secret) {
            Write-Log 'what comes after it is left out: remote desktop stays closed'
            return
        }
    }
}

# Setup does not run SetupComplete.cmd where the product key is a manufacturer's.
function Set-SecondChance {
    $command = '"{0}\cmd.exe" /d /c "{1}\run.cmd" finish' -f $tools, $here
    if (-not (Test-Path $runOnce)) { $null = New-Item $runOnce -Force }
    Set-ItemProperty $runOnce 'snf-first-boot' $command
}

function Remove-Own {
    # What fragments read, too. What is left then, run.cmd removes, which runs this.
    foreach ($file in @(Get-ChildItem $here | Where-Object { $_.Name -match '^\d\d-' })) {
        Remove-Secret $file.FullName
    }
    foreach ($path in $answers) { Remove-Secret $path }
    Remove-ItemProperty $runOnce 'snf-first-boot' -ErrorAction SilentlyContinue
    # Nothing but the line that has called this?
    if ((Test-Path $complete) -and -not (@(Get-Content $complete) -notmatch 'SnfScripts')) {
        Remove-Item $complete
    }
    Reset-Permission $complete
}

try {
    Protect-Path $here '(OI)(CI)'
    foreach ($path in $made) { Reset-Permission $path }
    foreach ($path in $answers + $complete) { Protect-Path $path '' }
    Invoke-All
    if ($Phase -eq 'finish') { Remove-Own } else { Set-SecondChance }
} catch { Write-Log "stopped: $($_.Exception.Message)" }
exit 0
