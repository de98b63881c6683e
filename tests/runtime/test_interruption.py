import os
import signal
import time

import pytest

from mia_lightning.runtime.interruption import Interrupted, interruptible


class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.01)  # the handler runs here, where an exception would be swallowed


@interruptible()
def finalize():
    Finalized()
    time.sleep(5)


def test_signal_in_a_finalizer_is_not_lost():
    with pytest.raises(Interrupted) as interruption:
        finalize()
    assert interruption.value.exit_code == 128 + signal.SIGUSR1
