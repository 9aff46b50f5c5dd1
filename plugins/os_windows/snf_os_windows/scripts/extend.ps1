# Has the file system of the system volume fill its partition, which has grown already. A cmdlet
# for volumes (Resize-Partition) would want to enlarge the partition.
$ErrorActionPreference = 'Stop'
# Clusters have up to 2 MiB, and NTFS leaves the last sector alone.
$slack = 4MB

function Get-Missing {
    $volume = Get-WmiObject Win32_LogicalDisk -Filter "DeviceID = '$env:SystemDrive'"
    $partition = @($volume.GetRelated('Win32_DiskPartition'))[0]
    return [long]$partition.Size - [long]$volume.Size
}

$missing = Get-Missing
if ($missing -lt $slack) { 'the file system fills its partition'; exit 0 }
$script = Join-Path $env:SystemRoot 'SnfScripts\diskpart.txt'
# By its letter: numbers of volumes are not those of partitions.
[IO.File]::WriteAllText($script, "select volume $($env:SystemDrive[0])`r`nextend filesystem`r`n")
& (Join-Path $env:SystemRoot 'System32\diskpart.exe') /s $script
$left = Get-Missing
"the file system has grown by $($missing - $left) bytes"
exit [int]($left -ge $slack)
