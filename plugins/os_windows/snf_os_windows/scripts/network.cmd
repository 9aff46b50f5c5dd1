
rem Sets NAME and INDEX of the NIC with the MAC address given, which may still get its driver: to
rem nothing where there is none. wmic ends its lines with two carriage returns, the second of which
rem goes with the inner loop.
:find
set "NIC_NetConnectionID="
set "NIC_Index="
for /l %%t in (1,1,15) do if not defined NIC_NetConnectionID call :look %1 %%t
set "NAME=%NIC_NetConnectionID%"
set "INDEX=%NIC_Index%"
if defined NAME exit /b 0
echo there is no NIC with the MAC address %1
set CODE=1
exit /b 0

:look
if not "%2"=="1" "%SystemRoot%\System32\ping.exe" -n 4 127.0.0.1 >nul
set "WHERE=MACAddress='%1' and NetConnectionID is not null"
for /f "tokens=1* delims==" %%a in ('%WMIC% nic where "%WHERE%" get Index^,NetConnectionID /value ^<nul') do (
    for /f "delims=" %%c in ("%%b") do set "NIC_%%a=%%c"
)
exit /b 0

:netsh
"%SystemRoot%\System32\netsh.exe" interface %* && exit /b 0
echo netsh interface %*: failed
set CODE=1
exit /b 0

:legacymtu
for /f "tokens=1* delims==" %%a in ('%WMIC% nicconfig where "Index=%INDEX%" get SettingID /value ^<nul') do (
    for /f "delims=" %%c in ("%%b") do set "GUID=%%c"
)
"%SystemRoot%\System32\reg.exe" add "%TCPIP%\Interfaces\%GUID%" /v MTU /t REG_DWORD /d %1 /f && exit /b 0
set CODE=1
exit /b 0
