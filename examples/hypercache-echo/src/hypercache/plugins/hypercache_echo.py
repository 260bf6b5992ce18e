"""Where HyperCache finds the plug-ins of hypercache-echo."""

from hypercache_echo.command import echo_reverse
from hypercache_echo.handler import EchoHandlers
from hypercache_echo.passphrase import Passphrase
from hypercache_echo.policy import TmpFirst
from hypercache_echo.tally import Tally

__all__ = ["echo_reverse", "handlers", "passphrase", "policy", "tally"]

handlers = EchoHandlers()
passphrase = Passphrase()
policy = TmpFirst()
tally = Tally()
