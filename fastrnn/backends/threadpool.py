"""A handle for threadpoolctl, where that is installed: its limits of OpenMP's threads are those of
calls, too."""

from threadpoolctl import LibController, register

from fastrnn.backends import threads


class Controller(LibController):
    user_api = "openmp"
    internal_api = "fastrnn"
    filename_prefixes = ("_kernels.",)
    check_symbols = ("PyInit__kernels",)

    def get_num_threads(self) -> int:
        return threads.get_num_threads()

    def set_num_threads(self, num_threads: int) -> None:
        threads.set_num_threads(num_threads)

    def get_version(self) -> None:
        """The file does not know it."""


register(Controller)
