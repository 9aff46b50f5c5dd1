"""The built-in answer file, for the version, architecture and language that the image has.

It answers all that the first boot asks, and only what that version knows: Windows takes no file
with a setting that is unknown to it. Which version knows which setting of OOBE is stated in
Microsoft's "Unattended Windows Setup Reference".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_os_windows.unattend import SHELL_SETUP, AnswerFile

if TYPE_CHECKING:
    from snf_os_windows.inspection import Facts

INTERNATIONAL = "Microsoft-Windows-International-Core"

LANGUAGE = "en-US"
"""What the machine speaks, unless the image does not."""

WINDOWS_7 = 7600
WINDOWS_8 = 9200
WINDOWS_10 = 10240

AUTOMATIC_UPDATES = (
    r"reg.exe add "
    r'"HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\WindowsUpdate\Auto Update" '
    r"/v AUOptions /t REG_DWORD /d 4 /f"
)
"""Install updates by themselves: a machine on a public network. Windows before 10 looks here."""

ACCOUNT_EXISTS = (
    r'reg.exe add "HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\Setup\OOBE" '
    r"/v UnattendCreatedUser /t REG_DWORD /d 1 /f"
)
"""Clients want an account made at the console unless they believe that the answer file made one."""


def built_in(facts: Facts, time_zone: str, *, account: bool) -> AnswerFile:
    """The answer file.

    ``account``: whether there will be an account with a password, so that nobody has to be asked
    for one. Where there is none, the console asks: a machine that nobody can enter is of no use.
    """
    arch, answer = facts.architecture, AnswerFile.blank()
    answer.set_computer_name("*", arch)
    answer.set_time_zone(time_zone, arch)
    if facts.build < WINDOWS_10:
        answer.run_in_specialize(AUTOMATIC_UPDATES, "Install updates automatically", arch)
    language = facts.languages[0] if facts.languages else LANGUAGE
    if LANGUAGE in facts.languages:
        language = LANGUAGE
    for name in ("InputLocale", "SystemLocale", "UILanguage", "UILanguageFallback", "UserLocale"):
        answer.set_value("oobeSystem", INTERNATIONAL, [name], language, arch)
    for name, value in _oobe(facts).items():
        answer.set_value("oobeSystem", SHELL_SETUP, ["OOBE", name], value, arch)
    if account:
        ask_for_no_account(answer, facts)
    return answer


def ask_for_no_account(answer: AnswerFile, facts: Facts) -> None:
    """Have the console ask for no account and no password: there is an account that has one."""
    arch = facts.architecture
    answer.run_in_specialize(ACCOUNT_EXISTS, "Ask for no account", arch)
    if facts.build >= WINDOWS_8 and facts.installation_type.startswith("Server"):
        # Only servers have it.
        path = ["OOBE", "HideLocalAccountScreen"]
        answer.set_value("oobeSystem", SHELL_SETUP, path, "true", arch)


def _oobe(facts: Facts) -> dict[str, str]:
    """What the welcome at the first boot is to leave out."""
    answers = {"HideEULAPage": "true"}
    if facts.build >= WINDOWS_8:
        answers["HideOEMRegistrationScreen"] = "true"
        answers["HideOnlineAccountScreens"] = "true"
    else:
        answers["NetworkLocation"] = "Other"  # a public network; later versions do not ask
    if facts.build >= WINDOWS_7:
        answers["HideWirelessSetupInOOBE"] = "true"
    # 1: protected as Microsoft recommends, updates included. 3 would be nothing of that.
    answers["ProtectYourPC"] = "1"
    return answers
