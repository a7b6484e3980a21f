//! Native kernels of quorumlog. The Python paths do the same and stay: as fallback and as oracle.

mod token_filter;

use pyo3::prelude::*;

#[pymodule]
mod quorumlog_native {
    use super::*;

    #[pymodule_export]
    use crate::token_filter::token_filter;

    /// What the Python side checks before it uses a kernel: raised when a kernel's meaning changes.
    #[pyfunction]
    fn kernel_version() -> u32 {
        1
    }
}
