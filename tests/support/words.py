"""Words that would steer a terminal or show other words than they hold."""

EVIL = "\x1b[2J\x9b31m\u202egnp.exe\u2066\x7f[/b]\r"
