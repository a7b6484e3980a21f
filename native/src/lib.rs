//! Native kernels of quorumlog. The Python paths do the same and stay: as fallback and as oracle.
//!
//! No kernel decides that a row is bad: it takes what is surely good, and lists the rest for Python. So a
//! bug here can be slow or unavailable, and the differential tests look for the third kind.

use pyo3::prelude::*;

mod buffer;
mod checksum;
mod column;
mod dictionary;
#[cfg(fuzzing)]
pub mod fuzzing;
mod names;
mod ndjson;
mod output;
mod row;
mod scan;
mod search;
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
    use crate::checksum::crc32;

    #[pymodule_export]
    use crate::search::find_in_page;

    #[pymodule_export]
    use crate::token_filter::token_filter;

    /// What the Python side checks before it uses a kernel: raised when a kernel's meaning changes.
    #[pyfunction]
    fn kernel_version() -> u32 {
        1
    }

    type Columns = Vec<(output::Lent, output::Fine)>;
    type Bounds = (usize, usize, usize, usize, usize, usize);
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
        limits: Bounds,
        dictionaries: Vec<String>,
        times: Vec<String>,
    ) -> PyResult<Option<(usize, Columns, Doubts)>> {
        let limits = bounds(limits, dictionaries);
        let bytes = body.as_bytes();
        let done = guarded(py, || {
            let mut parsed = ndjson::parse(bytes, &limits)?;
            let doubts = parsed.doubts.drain(..).map(|d| (d.number, d.from, d.to)).collect();
            Some((outputs(parsed, &times), doubts))
        })?;
        Ok(done.map(|((rows, columns), doubts): (_, Doubts)| (rows, lent(columns), doubts)))
    }

    /// The elements of the JSON array whose `[` is at `at`: (rows, columns, place behind its `]`), or None
    /// when the body is not UTF-8, or an element is not an object that is surely good, or there are more
    /// than `rows_max`. Else as `parse_ndjson`; there are no doubts here.
    #[pyfunction]
    fn parse_elements(
        py: Python<'_>,
        body: &Bound<'_, PyBytes>,
        at: usize,
        rows_max: usize,
        limits: Bounds,
        dictionaries: Vec<String>,
        times: Vec<String>,
    ) -> PyResult<Option<(usize, Columns, usize)>> {
        let limits = bounds(limits, dictionaries);
        let bytes = body.as_bytes();
        let done = guarded(py, || {
            let (parsed, end) = ndjson::elements(bytes, at, &limits, rows_max)?;
            Some((outputs(parsed, &times), end))
        })?;
        Ok(done.map(|((rows, columns), end)| (rows, lent(columns), end)))
    }

    fn bounds(given: Bounds, dictionaries: Vec<String>) -> row::Limits {
        row::Limits {
            row_bytes_max: given.0,
            row_fields: given.1,
            name_bytes: given.2,
            depth: given.3.min(32),
            columns_sure: given.4,
            doubts: given.5,
            dictionaries,
        }
    }

    /// `work` without the GIL; a panic becomes a RuntimeError.
    fn guarded<T: Send>(py: Python<'_>, work: impl FnOnce() -> Option<T> + Send) -> PyResult<Option<T>> {
        let caught = py.detach(|| std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)));
        caught.map_err(|_| PyRuntimeError::new_err("the JSON kernel panicked"))
    }

    fn outputs(parsed: ndjson::Parsed, times: &[String]) -> (usize, Vec<output::Output>) {
        let there = |name: &&String| parsed.columns.iter().any(|column| column.name == **name);
        let time = times.iter().find(there).cloned();
        let finished = parsed.columns.into_iter().map(|column| {
            let as_times = time.as_ref() == Some(&column.name);
            output::Output::new(column, as_times)
        });
        (parsed.rows, finished.collect())
    }

    fn lent(columns: Vec<output::Output>) -> Columns {
        columns.into_iter().map(output::Output::into_lent).collect()
    }
}
