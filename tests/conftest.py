"""Every configuration in which a kernel runs, as fixtures that are undone after the test."""

import os
import shutil
import tempfile

# On a busy machine waiting threads that spin, of NumPy's BLAS or of OpenMP, cost 10 to 100 ms a
# call. Read when the libraries load.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import pytest
from util import FLOATS

import fastrnn
from fastrnn.backends import current_backend, get_backend

kernels = get_backend("cython")._kernels


@pytest.fixture(autouse=True)
def configuration_is_restored():
    backend, isa, n = current_backend(), kernels.current_isa(), fastrnn.get_num_threads()
    yield
    fastrnn.set_backend(backend)
    fastrnn.use_isa(isa)
    fastrnn.set_num_threads(n)


@pytest.fixture(params=["numpy", "cython"])
def backend(request):
    fastrnn.set_backend(request.param)
    return request.param


@pytest.fixture(params=kernels.isas())
def isa(request):
    fastrnn.use_isa(request.param)
    return request.param


@pytest.fixture(params=["numpy", *kernels.isas()])
def implementation(request):
    """Everything that computes: the reference, and the kernels of every instruction set."""
    fastrnn.set_backend("numpy" if request.param == "numpy" else "cython")
    if request.param != "numpy":
        fastrnn.use_isa(request.param)
    return request.param


@pytest.fixture(params=FLOATS)
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture
def small_work_is_split():
    """As many threads as are set, however little the work."""
    kernels.set_flops_per_thread(1)
    yield
    kernels.set_flops_per_thread()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


CHROMIUM = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    "--hide-scrollbars",
)


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, driven by Selenium, which keeps what pages write to their console."""
    found = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in found:
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location, driver = found
        for option in (*CHROMIUM, f"--user-data-dir={profile}"):
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
        try:
            yield chrome
        finally:
            chrome.quit()
