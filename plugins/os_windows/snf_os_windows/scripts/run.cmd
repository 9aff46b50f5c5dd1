@echo off
rem Runs the fragments beside it in the order of their names, and tidies up when Setup is done.
rem Called by Windows Setup, first with "specialize", then with "finish"; it never fails.
setlocal EnableExtensions DisableDelayedExpansion
set "HERE=%SystemRoot%\SnfScripts"
set "TOOLS=%SystemRoot%\System32"
set "LOG=%SystemRoot%\Panther\snf-first-boot.log"
if not exist "%SystemRoot%\Panther\" set "LOG=%SystemRoot%\snf-first-boot.log"
set "RUNONCE=HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\RunOnce"
set "COMPLETE=%SystemRoot%\Setup\Scripts\SetupComplete.cmd"
set "PHASE=%~1"
set "STOPPED="

call :protect "%HERE%" "(OI)(CI)"
call :reset "%SystemRoot%\Panther\Unattend"
call :reset "%SystemRoot%\Setup\Scripts"
call :protect "%COMPLETE%" ""
for %%a in (unattend autounattend) do (
    call :protect "%SystemDrive%\%%a.xml" ""
    call :protect "%SystemRoot%\Panther\%%a.xml" ""
    call :protect "%SystemRoot%\Panther\Unattend\%%a.xml" ""
)
for /f "delims=" %%f in ('dir /b /a-d /on "%HERE%\??-*.cmd"') do (
    if not defined STOPPED call :fragment "%%f"
)
if "%PHASE%"=="finish" goto finish
rem Setup does not run SetupComplete.cmd where the product key is a manufacturer's.
set "AGAIN=\"%TOOLS%\cmd.exe\" /d /c \"%HERE%\run.cmd\" finish"
"%TOOLS%\reg.exe" add "%RUNONCE%" /v snf-first-boot /d "%AGAIN%" /f >nul 2>&1
exit /b 0

:finish
for /f "delims=" %%f in ('dir /b /a-d "%HERE%\??-*"') do call :wipe "%HERE%\%%f"
for %%a in (unattend autounattend) do (
    call :wipe "%SystemDrive%\%%a.xml"
    call :wipe "%SystemRoot%\Panther\%%a.xml"
    call :wipe "%SystemRoot%\Panther\Unattend\%%a.xml"
)
"%TOOLS%\reg.exe" delete "%RUNONCE%" /v snf-first-boot /f >nul 2>&1
rem Nothing but the line that has called this?
set "OTHERS="
if not exist "%COMPLETE%" set "OTHERS=none"
if not defined OTHERS for /f "usebackq skip=1 delims=" %%l in ("%COMPLETE%") do set "OTHERS=yes"
if not defined OTHERS del /f /q "%COMPLETE%" >nul 2>&1
call :reset "%COMPLETE%"
rem On one line: cmd.exe does not look for the rest of a file that is gone.
rd /s /q "%HERE%" & exit /b 0

:fragment
set "NAME=%~1"
set "SECRET="
set "KEPT="
if not "%NAME:.secret.=%"=="%NAME%" set "SECRET=yes"
if not "%NAME:.again.=%"=="%NAME%" set "KEPT=yes"
if defined SECRET (
    "%TOOLS%\cmd.exe" /d /c ""%HERE%\%NAME%"" >"%HERE%\output.txt" 2>nul
) else (
    "%TOOLS%\cmd.exe" /d /c ""%HERE%\%NAME%"" >"%HERE%\output.txt" 2>&1
)
set "CODE=%ERRORLEVEL%"
type "%HERE%\output.txt" >>"%LOG%" 2>nul
if not "%CODE%"=="0" goto failed
call :log "%NAME%: done"
if defined SECRET call :wipe "%HERE%\%NAME%"
if not defined KEPT del /f /q "%HERE%\%NAME%" >nul 2>&1
exit /b 0

:failed
call :log "%NAME%: failed (%CODE%)"
if not defined SECRET exit /b 0
call :log "what comes after it is left out: remote desktop stays closed"
set "STOPPED=yes"
exit /b 0

:wipe
if not exist "%~1" exit /b 0
"%TOOLS%\fsutil.exe" file setzerodata offset=0 length=%~z1 "%~1" >nul 2>&1
del /f /q "%~1" >nul 2>&1
if exist "%~1" call :log "%~1 stays"
exit /b 0

rem What the appliance makes, everybody may read and write. Accounts are named by their SIDs
rem (SYSTEM, and the administrators), as their names are localised. XP has no icacls.
:protect
if not exist "%~1" exit /b 0
if not exist "%TOOLS%\icacls.exe" exit /b 0
"%TOOLS%\icacls.exe" "%~1" /reset /t /c /q >nul 2>&1
"%TOOLS%\icacls.exe" "%~1" /inheritance:r /grant:r "*S-1-5-18:%~2F" "*S-1-5-32-544:%~2F" /c /q >nul 2>&1
exit /b 0

:reset
if not exist "%~1" exit /b 0
if exist "%TOOLS%\icacls.exe" "%TOOLS%\icacls.exe" "%~1" /reset /c /q >nul 2>&1
exit /b 0

:log
>>"%LOG%" echo %DATE% %TIME% %PHASE%: %~1
exit /b 0
