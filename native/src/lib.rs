//! Native kernels of quorumlog. The Python paths do the same and stay: as fallback and as oracle.

use pyo3::prelude::*;

#[pymodule]
mod quorumlog_native {
    use super::*;

    /// What the Python side checks before it uses a kernel: raised when a kernel's meaning changes.
    #[pyfunction]
    fn kernel_version() -> u32 {
        1
    }
}
