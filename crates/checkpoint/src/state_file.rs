//! The file with what one micro-batch changed in the state of all operators, and the snapshot with parts of it.
//!
//! ```text
//!  frame      "HWST" or "HWSN"  version: u32  length of body: u64  checksum of body: u64
//!  body       micro-batch: u64  entries: u32
//!  entry      length: u32  name (UTF-8)  length: u64  Arrow IPC stream, its buffers lz4 or zstd
//! ```
//!
//! A snapshot is `HWSN` and zstd: it is written once for many changes, beside the loop, and read only by a restart.
//!
//! An entry has records of one operator under one schema. What operators note in the metadata of their schemas,
//! such as up to when they forget, is kept; so is a batch that has no rows and only such a note.
//!
//! Numbers are little-endian; the checksum is XXH3 of 64 bits. A file that is cut off, that has a bit
//! changed, or that is another micro-batch's is found before anything of it is used.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, GenericByteViewArray, RecordBatch};
use arrow::datatypes::{ByteViewType, DataType};
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use highwater_core::{BatchId, Error, Result, stable_hash};

/// The records of one operator that a micro-batch changed.
#[derive(Clone, Debug, PartialEq)]
pub struct OperatorChanges {
    /// The operator's name, unique in the query.
    pub operator: String,
    /// Its records, all with the same columns; the metadata of their schemas may differ.
    pub records: Vec<RecordBatch>,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What a micro-batch changed.
    Changes,
    /// Parts of the state as a micro-batch left it.
    Snapshot,
}

impl Kind {
    fn magic(self) -> &'static [u8; 4] {
        match self {
            Self::Changes => b"HWST",
            Self::Snapshot => b"HWSN",
        }
    }

    fn compression(self) -> CompressionType {
        match self {
            Self::Changes => CompressionType::LZ4_FRAME,
            Self::Snapshot => CompressionType::ZSTD,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Changes => "state file",
            Self::Snapshot => "snapshot",
        }
    }
}

const VERSION: u32 = 1;
/// The bytes of the frame before the body.
const HEADER: usize = 24;

/// The bytes of the state file of `batch`; `None` when no operator changed a record.
///
/// # Errors
/// `Internal` when the records of an operator do not have the same columns.
pub fn encode(batch: BatchId, changes: &[OperatorChanges]) -> Result<Option<Vec<u8>>> {
    let entries = entries(changes);
    if entries.is_empty() {
        return Ok(None);
    }
    framed(Kind::Changes, batch, entries).map(Some)
}

/// The bytes of a snapshot of these records as of `batch`; there may be none.
///
/// # Errors
/// `Internal` when the records of an operator do not have the same columns.
pub fn encode_snapshot(batch: BatchId, parts: &[OperatorChanges]) -> Result<Vec<u8>> {
    framed(Kind::Snapshot, batch, entries(parts))
}

/// Records of an operator that stand together and have one schema.
type Entry<'a> = (&'a OperatorChanges, Vec<&'a RecordBatch>);

fn entries(changes: &[OperatorChanges]) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    for change in changes {
        let told: Vec<_> = change.records.iter().filter(|r| tells(r)).collect();
        let same = |a: &&RecordBatch, b: &&RecordBatch| a.schema_ref() == b.schema_ref();
        let alike = told.chunk_by(same).map(<[_]>::to_vec);
        entries.extend(alike.map(|records| (change, records)));
    }
    entries
}

fn framed(kind: Kind, batch: BatchId, entries: Vec<Entry<'_>>) -> Result<Vec<u8>> {
    let mut file = vec![0; HEADER];
    file.extend_from_slice(&batch.0.to_le_bytes());
    file.extend_from_slice(&length32(entries.len())?.to_le_bytes());
    for (change, records) in entries {
        encode_entry(kind, change, &records, &mut file)
            .map_err(|e| e.context("writing state").with_operator(&change.operator))?;
    }
    let body = &file[HEADER..];
    let (length, checksum) = (body.len() as u64, stable_hash(body));
    file[..4].copy_from_slice(kind.magic());
    file[4..8].copy_from_slice(&VERSION.to_le_bytes());
    file[8..16].copy_from_slice(&length.to_le_bytes());
    file[16..24].copy_from_slice(&checksum.to_le_bytes());
    Ok(file)
}

/// What the state file of `batch` holds.
///
/// # Errors
/// `Corrupt` when the file is damaged, of another version, or of another micro-batch.
pub fn decode(batch: BatchId, file: &[u8]) -> Result<Vec<OperatorChanges>> {
    decode_as(Kind::Changes, batch, file)
}

/// What the file of this kind, of or as of `batch`, holds.
///
/// # Errors
/// `Corrupt` when the file is damaged, of another kind or version, or of another micro-batch.
pub fn decode_as(kind: Kind, batch: BatchId, file: &[u8]) -> Result<Vec<OperatorChanges>> {
    let mut rest = check(kind, batch, file)?;
    let count = rest.u32()?;
    let changes = (0..count)
        .map(|_| decode_entry(&mut rest))
        .collect::<Result<_>>()?;
    match rest.0 {
        [] => Ok(changes),
        _ => Err(Error::corrupt("it goes on after its end")),
    }
}

/// Finds damage without decoding the records.
///
/// # Errors
/// `Corrupt` when the file is damaged, of another kind or version, or not as of `batch`.
pub(crate) fn check_snapshot(batch: BatchId, file: &[u8]) -> Result<()> {
    check(Kind::Snapshot, batch, file).map(|_| ())
}

/// The body of a file, after the number of its micro-batch.
fn check(kind: Kind, batch: BatchId, file: &[u8]) -> Result<Rest<'_>> {
    let mut rest = Rest(check_frame(kind, file)?);
    let found = BatchId(rest.u64()?);
    if found != batch {
        return Err(Error::corrupt(format!("it is of micro-batch {found}")));
    }
    Ok(rest)
}

/// True when there is something in the records, be it only a note of the operator.
fn tells(records: &RecordBatch) -> bool {
    records.num_rows() > 0 || !records.schema_ref().metadata().is_empty()
}

/// `records` are those of the operator's that stand together and have one schema.
fn encode_entry(
    kind: Kind,
    changes: &OperatorChanges,
    records: &[&RecordBatch],
    file: &mut Vec<u8>,
) -> Result<()> {
    file.extend_from_slice(&length32(changes.operator.len())?.to_le_bytes());
    file.extend_from_slice(changes.operator.as_bytes());
    let at = file.len();
    file.extend_from_slice(&[0; 8]);
    let (Some(first), Some(all)) = (records.first(), changes.records.first()) else {
        return Err(Error::internal("an operator without records"));
    };
    let options = IpcWriteOptions::default()
        .try_with_compression(Some(kind.compression()))
        .map_err(unwritable)?;
    let mut writer = StreamWriter::try_new_with_options(&mut *file, first.schema_ref(), options)
        .map_err(unwritable)?;
    if first.schema_ref().fields() != all.schema_ref().fields() {
        return Err(Error::internal("its records have different columns"));
    }
    for records in records {
        writer.write(&without_slack(records)?).map_err(unwritable)?;
    }
    writer.finish().map_err(unwritable)?;
    drop(writer);
    let length = (file.len() - at - 8) as u64;
    file[at..at + 8].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

fn decode_entry(rest: &mut Rest<'_>) -> Result<OperatorChanges> {
    let length = u64::from(rest.u32()?);
    let operator = std::str::from_utf8(rest.take(length)?)
        .map_err(|e| Error::corrupt("the name of an operator is no text").with_source(e))?
        .to_owned();
    let length = rest.u64()?;
    let stream = rest.take(length)?;
    let records = StreamReader::try_new(stream, None)
        .and_then(Iterator::collect)
        .map_err(|e| {
            Error::corrupt("its records cannot be read")
                .with_operator(&operator)
                .with_source(e)
        })?;
    Ok(OperatorChanges { operator, records })
}

/// The body of a file whose frame is in order.
fn check_frame(kind: Kind, file: &[u8]) -> Result<&[u8]> {
    let mut rest = Rest(file);
    if rest.take(4)? != kind.magic() {
        return Err(Error::corrupt(format!("it is no {}", kind.name())));
    }
    let version = rest.u32()?;
    if version != VERSION {
        return Err(Error::corrupt(format!(
            "it has format version {version}, not {VERSION}"
        )));
    }
    let (length, checksum) = (rest.u64()?, rest.u64()?);
    let body = rest.0;
    if body.len() as u64 != length {
        return Err(Error::corrupt(format!(
            "it has {} bytes of the {length} it should have",
            body.len()
        )));
    }
    if stable_hash(body) != checksum {
        return Err(Error::corrupt("its checksum is wrong"));
    }
    Ok(body)
}

/// The records with string views that hold no more text than is theirs.
///
/// A view array may refer to buffers it shares with a much larger array, and IPC writes whole buffers.
fn without_slack(records: &RecordBatch) -> Result<RecordBatch> {
    let columns = records
        .columns()
        .iter()
        .map(|column| match column.data_type() {
            DataType::Utf8View => shrunk(column, column.as_string_view()),
            DataType::BinaryView => shrunk(column, column.as_binary_view()),
            _ => Arc::clone(column),
        });
    RecordBatch::try_new(records.schema(), columns.collect()).map_err(unwritable)
}

fn shrunk<T: ByteViewType + ?Sized>(
    column: &ArrayRef,
    views: &GenericByteViewArray<T>,
) -> ArrayRef {
    let held: usize = views.data_buffers().iter().map(|buffer| buffer.len()).sum();
    if held > 2 * views.total_buffer_bytes_used() {
        Arc::new(views.gc())
    } else {
        Arc::clone(column)
    }
}

fn length32(length: usize) -> Result<u32> {
    u32::try_from(length).map_err(|e| Error::internal("too long for a state file").with_source(e))
}

fn unwritable(cause: arrow::error::ArrowError) -> Error {
    Error::internal("the records cannot be written as Arrow IPC").with_source(cause)
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let split = usize::try_from(length)
            .ok()
            .and_then(|length| self.0.split_at_checked(length));
        let (taken, rest) = split.ok_or_else(|| Error::corrupt("it ends in the middle"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or_else(|| Error::corrupt("it ends in the middle"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, Int64Array, StringViewArray};
    use arrow::datatypes::Int32Type;
    use highwater_core::ErrorKind;

    use super::*;

    fn records(keys: &[&str]) -> RecordBatch {
        let names: StringViewArray = keys.iter().copied().map(Some).collect();
        let kinds: DictionaryArray<Int32Type> = keys.iter().copied().collect();
        let counts: Int64Array = (0..)
            .take(keys.len())
            .map(|n| (n % 2 == 0).then_some(n))
            .collect();
        RecordBatch::try_from_iter_with_nullable([
            ("name", Arc::new(names) as ArrayRef, true),
            ("kind", Arc::new(kinds), true),
            ("count", Arc::new(counts), true),
        ])
        .expect("records")
    }

    fn changes() -> Vec<OperatorChanges> {
        let long = "a string that is too long for a view";
        vec![
            OperatorChanges {
                operator: "aggregate".into(),
                records: vec![records(&["a", long]), records(&["c", "b", long])],
            },
            OperatorChanges {
                operator: "dedup — 2".into(),
                records: vec![records(&["x"])],
            },
        ]
    }

    fn file() -> Vec<u8> {
        let file = encode(BatchId(7), &changes()).expect("encoded");
        file.expect("there are records")
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(decode(BatchId(7), &file()).expect("decoded"), changes());
        assert_eq!(file(), file(), "the same changes are the same bytes");
    }

    #[test]
    fn nothing_changed_is_no_file() {
        let untouched = OperatorChanges {
            operator: "aggregate".into(),
            records: vec![records(&[])],
        };
        for changes in [vec![], vec![untouched.clone()]] {
            assert_eq!(encode(BatchId(0), &changes).expect("encoded"), None);
        }
        let mut some = changes();
        some.insert(1, untouched);
        let file = encode(BatchId(7), &some).expect("encoded").expect("some");
        assert_eq!(decode(BatchId(7), &file).expect("decoded"), changes());
    }

    /// An operator that only forgets says so in the metadata of a batch without rows; merged sessions have a mark of
    /// their own. All of it comes back, in order.
    #[test]
    fn what_operators_note_in_their_schemas_is_kept() {
        let noted = |keys: &[&str], key: &str, value: &str| {
            let records = records(keys);
            let metadata = [(key.to_owned(), value.to_owned())].into();
            let schema = records.schema().as_ref().clone().with_metadata(metadata);
            records.with_schema(Arc::new(schema)).expect("noted")
        };
        let of = |operator: &str, records| OperatorChanges {
            operator: operator.into(),
            records,
        };
        let forgets = vec![noted(&[], "evicted_to", "5")];
        let removed = vec![noted(&["a"], "removed", "1"), noted(&["b"], "removed", "1")];
        let plain = vec![records(&["c"])];
        let again = vec![noted(&["d"], "removed", "1")];
        let mixed = [&removed[..], &plain, &again].concat();
        let changes = [of("aggregate", forgets.clone()), of("session", mixed)];
        let file = encode(BatchId(7), &changes)
            .expect("encoded")
            .expect("some");
        let expected = [
            of("aggregate", forgets),
            of("session", removed),
            of("session", plain),
            of("session", again),
        ];
        assert_eq!(decode(BatchId(7), &file).expect("decoded"), expected);
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_found() {
        let whole = file();
        for length in 0..whole.len() {
            let error = decode(BatchId(7), &whole[..length]).expect_err("cut");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "cut at {length}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            let error = decode(BatchId(7), &changed).expect_err("changed");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "changed at {at}");
        }
    }

    #[test]
    fn a_wrong_file_says_what_is_wrong() {
        let mut version = file();
        version[4] = 2;
        let mut longer = file();
        longer.push(0);
        let length = longer.len() - HEADER;
        for (file, message) in [
            (b"v1\n{}".to_vec(), "it is no state file"),
            (vec![], "it ends in the middle"),
            (version, "it has format version 2, not 1"),
            (
                longer,
                &format!("it has {length} bytes of the {} it should have", length - 1),
            ),
        ] {
            let error = decode(BatchId(7), &file).expect_err("refused");
            assert_eq!(error.message(), message);
        }
        let error = decode(BatchId(8), &file()).expect_err("refused");
        assert_eq!(error.message(), "it is of micro-batch 7");
    }

    #[test]
    fn records_of_different_columns_are_refused() {
        let mixed = OperatorChanges {
            operator: "aggregate".into(),
            records: vec![
                records(&["a"]),
                records(&["a"]).project(&[0]).expect("projected"),
            ],
        };
        let error = encode(BatchId(0), &[mixed]).expect_err("refused");
        assert_eq!(
            (error.kind(), error.operator()),
            (ErrorKind::Internal, Some("aggregate"))
        );
    }

    #[test]
    fn a_snapshot_is_read_as_one_and_every_damage_is_found() {
        let whole = encode_snapshot(BatchId(7), &changes()).expect("encoded");
        assert!(whole.starts_with(b"HWSN\x01\0\0\0"));
        let found = decode_as(Kind::Snapshot, BatchId(7), &whole);
        assert_eq!(found.expect("decoded"), changes());
        let error = decode(BatchId(7), &whole).expect_err("no changes");
        assert_eq!(error.message(), "it is no state file");
        let error = check_snapshot(BatchId(7), &file()).expect_err("no snapshot");
        assert_eq!(error.message(), "it is no snapshot");
        let error = check_snapshot(BatchId(6), &whole).expect_err("another");
        assert_eq!(error.message(), "it is of micro-batch 7");
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x04;
            let error = check_snapshot(BatchId(7), &changed).expect_err("changed");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "changed at {at}");
            check_snapshot(BatchId(7), &whole[..at]).expect_err("cut");
        }
        let empty = encode_snapshot(BatchId(1), &[]).expect("encoded");
        let found = decode_as(Kind::Snapshot, BatchId(1), &empty);
        assert_eq!(found.expect("decoded"), []);
    }

    #[test]
    fn shared_text_is_not_written() {
        let texts: Vec<String> = (0..1_000)
            .map(|n| format!("a rather long text {n}"))
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let changes = OperatorChanges {
            operator: "aggregate".into(),
            records: vec![
                records(&texts)
                    .slice(3, 1)
                    .project(&[0])
                    .expect("projected"),
            ],
        };
        let file = encode(BatchId(0), std::slice::from_ref(&changes)).expect("encoded");
        let file = file.expect("some");
        assert!(file.len() < 1_000, "{} bytes", file.len());
        assert_eq!(decode(BatchId(0), &file).expect("decoded"), [changes]);
    }
}
