//! A file as blocks of whole records, so that each block is decoded once, by one reader.
//!
//! ```text
//!  bytes  ──► │ a,1⏎ b,2⏎ c,3⏎ │ d,4⏎ e,x⏎ f,6⏎ │ …      about 1 MiB each, cut after a record
//!               strict reader     strict reader fails: the tolerant one decodes this block
//! ```
//!
//! No row can come out twice, since nothing comes out of a block before all of it is decoded.

use std::fs::File;
use std::io::Read;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use highwater_core::{Error, Result};
use object_store::{GetResult, GetResultPayload};

/// Blocks are about this long.
const TARGET: usize = 1 << 20;
/// The mark some programs put before UTF-8.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Some whole records of a file.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// The records with their line ends; the last record of a file may have none.
    pub(super) bytes: Bytes,
    /// The number of the first line, counted from 1.
    pub(super) line: u64,
    /// The file begins here.
    pub(super) first: bool,
}

/// Where a file may be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// After this text.
    After(Vec<u8>),
    /// After a newline that is not inside this quote.
    OutsideQuotes {
        /// What ends a line.
        newline: u8,
        /// The quote.
        quote: u8,
    },
    /// Nowhere: the file is one block.
    Never,
}

/// The blocks of one file.
pub(super) struct Blocks {
    input: Input,
    cut: Cut,
    rest: BytesMut,
    line: u64,
    first: bool,
    ended: bool,
}

enum Input {
    File(File, u64),
    Stream(BoxStream<'static, object_store::Result<Bytes>>),
}

impl Blocks {
    /// The blocks of what a store gave.
    pub(super) fn new(result: GetResult, cut: Cut) -> Self {
        let size = result.meta.size;
        let input = match result.payload {
            GetResultPayload::File(file, _) => Input::File(file, size),
            GetResultPayload::Stream(stream) => Input::Stream(stream),
        };
        Self {
            input,
            cut,
            rest: BytesMut::new(),
            line: 1,
            first: true,
            ended: false,
        }
    }

    /// The next block; `None` at the end of the file. An empty file has one empty block.
    ///
    /// # Errors
    /// What the store says.
    pub(super) async fn next(&mut self) -> Result<Option<Block>> {
        let mut target = TARGET;
        while !self.ended {
            self.fill(target).await?;
            if self.ended {
                break;
            }
            if let Some(at) = self.cut.last(&self.rest) {
                let bytes = self.rest.split_to(at).freeze();
                return Ok(Some(self.block(bytes)));
            }
            target = target.saturating_mul(2);
        }
        if self.rest.is_empty() && !self.first {
            return Ok(None);
        }
        let bytes = std::mem::take(&mut self.rest).freeze();
        Ok(Some(self.block(bytes)))
    }

    fn block(&mut self, mut bytes: Bytes) -> Block {
        if self.first && bytes.starts_with(BOM) {
            bytes = bytes.slice(BOM.len()..);
        }
        let block = Block {
            line: self.line,
            first: self.first,
            bytes,
        };
        if !self.ended {
            self.line += newlines(&block.bytes);
        }
        self.first = false;
        block
    }

    /// Reads until there are `target` bytes, or the file ends.
    async fn fill(&mut self, target: usize) -> Result<()> {
        while self.rest.len() < target && !self.ended {
            match &mut self.input {
                Input::File(file, left) => {
                    // As DataFusion's readers: a local file is read where it is decoded.
                    let want = (*left).min((target - self.rest.len()) as u64);
                    let mut chunk = Vec::with_capacity(usize::try_from(want).unwrap_or(TARGET));
                    let read = file.by_ref().take(want).read_to_end(&mut chunk)? as u64;
                    *left -= read;
                    self.ended = read < want || *left == 0;
                    self.push(Bytes::from(chunk));
                }
                Input::Stream(stream) => match stream.next().await {
                    Some(chunk) => {
                        let chunk = chunk.map_err(Error::from)?;
                        self.push(chunk);
                    }
                    None => self.ended = true,
                },
            }
        }
        Ok(())
    }

    fn push(&mut self, chunk: Bytes) {
        if self.rest.is_empty() {
            self.rest = BytesMut::from(chunk);
        } else {
            self.rest.extend_from_slice(&chunk);
        }
    }
}

impl Cut {
    /// Just after the last place in `bytes` where it may be cut.
    fn last(&self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Never => None,
            Self::After(text) => match text.as_slice() {
                [byte] => bytes.iter().rposition(|b| b == byte).map(|at| at + 1),
                text => bytes
                    .windows(text.len())
                    .rposition(|window| window == text)
                    .map(|at| at + text.len()),
            },
            Self::OutsideQuotes { newline, quote } => {
                let mut last = None;
                let mut quoted = false;
                for (at, byte) in bytes.iter().enumerate() {
                    quoted ^= byte == quote;
                    if byte == newline && !quoted {
                        last = Some(at + 1);
                    }
                }
                last
            }
        }
    }
}

/// How many lines end in `bytes`.
pub(super) fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|b| **b == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_cut_after_records() {
        let newline = Cut::After(b"\n".to_vec());
        let quoted = Cut::OutsideQuotes {
            newline: b'\n',
            quote: b'"',
        };
        for (cut, bytes, at) in [
            (&newline, "a\nb\nc", Some(4)),
            (&newline, "abc", None),
            (&Cut::After(b"||".to_vec()), "a||b||c", Some(6)),
            (&quoted, "a\n\"b\nc\"\nd", Some(8)),
            (&quoted, "a\n\"b\nc", Some(2)),
            (&Cut::Never, "a\nb\n", None),
        ] {
            assert_eq!(cut.last(bytes.as_bytes()), at, "{cut:?} {bytes}");
        }
    }
}
