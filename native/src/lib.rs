//! Native kernels of quorumlog. The Python paths do the same and stay: as fallback and as oracle.
//!
//! No kernel decides that a row is bad: it takes what is surely good, and lists the rest for Python. So a
//! bug here can be slow or unavailable, and the differential tests look for the third kind.

use pyo3::prelude::*;

mod buffer;
mod column;
mod dictionary;
mod names;
mod ndjson;
mod output;
mod row;
mod scan;
mod text;
mod times;
mod token_filter;
mod validity;

#[pymodule]
mod quorumlog_native {
    use super::*;
    use pyo3::exceptions::PyRuntimeError;
    use pyo3::types::PyBytes;

    #[pymodule_export]
    use crate::buffer::Buffer;

    #[pymodule_export]
    use crate::token_filter::token_filter;

    /// What the Python side checks before it uses a kernel: raised when a kernel's meaning changes.
    #[pyfunction]
    fn kernel_version() -> u32 {
        1
    }

    type Columns = Vec<(output::Lent, output::Fine)>;
    type Doubts = Vec<(u32, usize, usize)>;

    /// JSON lines as columns: (rows, columns, doubts), or None when the batch is not the kernel's.
    ///
    /// `limits`: row_bytes_max, row_fields, name_bytes, depth, columns_sure, doubts. `dictionaries`: names
    /// whose texts are numbered. `times`: of these names the first that is a column of usual times is
    /// given as such. A doubt is (number of the row, first byte, byte behind the last). Lets go of the GIL.
    #[pyfunction]
    fn parse_ndjson(
        py: Python<'_>,
        body: &Bound<'_, PyBytes>,
        limits: (usize, usize, usize, usize, usize, usize),
        dictionaries: Vec<String>,
        times: Vec<String>,
    ) -> PyResult<Option<(usize, Columns, Doubts)>> {
        let limits = row::Limits {
            row_bytes_max: limits.0,
            row_fields: limits.1,
            name_bytes: limits.2,
            depth: limits.3.min(32),
            columns_sure: limits.4,
            doubts: limits.5,
            dictionaries,
        };
        let bytes = body.as_bytes();
        let work = || {
            let parsed = ndjson::parse(bytes, &limits)?;
            let named = |name: &&String| parsed.columns.iter().any(|column| &&column.name == name);
            let time = times.iter().find(named).cloned();
            let doubts = parsed.doubts.iter().map(|d| (d.number, d.from, d.to)).collect();
            let finished = parsed.columns.into_iter().map(|column| {
                let as_times = time.as_ref() == Some(&column.name);
                output::Output::new(column, as_times)
            });
            Some((parsed.rows, finished.collect::<Vec<_>>(), doubts))
        };
        let caught = py.detach(|| std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)));
        let done = caught.map_err(|_| PyRuntimeError::new_err("the JSON kernel panicked"))?;
        let Some((rows, columns, doubts)) = done else { return Ok(None) };
        Ok(Some((rows, columns.into_iter().map(output::Output::into_lent).collect(), doubts)))
    }
}
