//! Which of the waiting files make the next micro-batch: a pure choice.

use std::collections::VecDeque;

use highwater_core::{Error, ReadLimit, Result};

use super::listing::ListedFile;

/// Takes the files of the next micro-batch off the front of `waiting`; at least one, if there is one.
///
/// # Errors
/// `Unsupported` for a limit on rows: nobody knows how many rows a file has before it is read.
pub(super) fn admit(
    waiting: &mut VecDeque<ListedFile>,
    limit: &ReadLimit,
) -> Result<Vec<ListedFile>> {
    let count = match limit {
        ReadLimit::All => waiting.len(),
        ReadLimit::MaxFiles(files) => usize::try_from(*files)
            .unwrap_or(usize::MAX)
            .clamp(1, waiting.len().max(1))
            .min(waiting.len()),
        ReadLimit::MaxBytes(bytes) => within(waiting, *bytes),
        other => {
            return Err(Error::unsupported(format!(
                "files cannot be read under the limit {other:?}"
            )));
        }
    };
    Ok(waiting.drain(..count).collect())
}

/// How many files from the front have at most `bytes` bytes together; at least one.
fn within(waiting: &VecDeque<ListedFile>, bytes: u64) -> usize {
    let mut sum = 0_u64;
    let fitting = waiting
        .iter()
        .take_while(|file| {
            sum = sum.saturating_add(file.size);
            sum <= bytes
        })
        .count();
    fitting.max(1).min(waiting.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_kept() {
        use ReadLimit::{All, MaxBytes, MaxFiles};
        for (sizes, limit, expected) in [
            (&[1, 2, 3][..], All, 3),
            (&[], All, 0),
            (&[], MaxFiles(2), 0),
            (&[], MaxBytes(2), 0),
            (&[1, 2, 3], MaxFiles(2), 2),
            (&[1], MaxFiles(2), 1),
            (&[1, 2, 3], MaxBytes(3), 2),
            (&[10, 2, 3], MaxBytes(3), 1),
            (&[1, 2, 3], MaxBytes(100), 3),
        ] {
            let mut waiting: VecDeque<_> = sizes
                .iter()
                .map(|size| ListedFile {
                    path: "x".into(),
                    size: *size,
                    modified: 0,
                    etag: None,
                    of_sink: false,
                })
                .collect();
            let admitted = admit(&mut waiting, &limit).expect("admitted");
            assert_eq!(admitted.len(), expected, "{sizes:?} {limit:?}");
        }
    }
}
