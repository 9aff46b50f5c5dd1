rem Has the file system of the system volume fill its partition, which has grown already. By its
rem letter: numbers of volumes are not those of partitions.
set "SCRIPT=%SystemRoot%\SnfScripts\diskpart.txt"
>"%SCRIPT%" echo select volume %SystemDrive:~0,1%
>>"%SCRIPT%" echo extend filesystem
"%SystemRoot%\System32\diskpart.exe" /s "%SCRIPT%"
exit /b %ERRORLEVEL%
