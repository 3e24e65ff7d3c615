"""The tests of `kernel_load` for a minute, with longer transfers, and what is left of them when TIME-WAIT is over. Takes five minutes."""

from interop.kernel import say
from interop.runner import test
from interop.system import check
from suites import kernel_load

TIME_WAIT = 60
# What a program may keep in MB: an allocator gives little back.
LEFT = 200


class SUITE(kernel_load.SUITE):
    seconds, length = 60, 5_000_000
    timeout = 600

    @classmethod
    def test_names(cls):
        return kernel_load.SUITE.test_names() + super().test_names()

    @test
    def nothing_is_left_when_time_wait_is_over(self):
        for node in (self.echo, self.agent, self.bulk_agent, self.gateway):
            node.wait_until_empty(TIME_WAIT + 15, states=("open", "time_wait"))
            say(f"{node.process.name}: {node.memory():.0f} MB, at most {node.memory('VmHWM'):.0f} MB")
            check(node.memory() < node.memory_at_start + LEFT, f"{node.process.name} keeps {node.memory():.0f} MB")
