@echo off
rem Called by Windows Setup, first with "specialize", then with "finish".
setlocal EnableExtensions DisableDelayedExpansion
set "HERE=%SystemRoot%\SnfScripts"
set "SHELL=%SystemRoot%\System32\WindowsPowerShell\v1.0\powershell.exe"
set "RUN=& ([ScriptBlock]::Create([IO.File]::ReadAllText('%HERE%\run.ps1'))) %~1"
"%SHELL%" -NoProfile -NonInteractive -InputFormat None -ExecutionPolicy Bypass -Command "%RUN%"
if errorlevel 1 >>"%SystemRoot%\Panther\snf-first-boot.log" echo %~1: PowerShell does not run
rem On one line: cmd.exe does not look for the rest of a file that is gone.
if "%~1"=="finish" (rd /s /q "%HERE%" & exit /b 0) else exit /b 0
