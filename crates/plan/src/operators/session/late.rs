//! The late rows of a trigger: counted, and handed on to whoever wants them.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{filter, filter_record_batch};
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;

use super::codec::Codec;
use super::recipe::{Opened, Recipe};
use crate::cell::BatchCell;

/// What was late in the running trigger.
#[derive(Debug)]
pub(super) struct LateSessions {
    codec: Codec,
    /// The keys and sessions of late rows: Spark counts them after it has grouped by them.
    seen: HashSet<Box<[u8]>>,
    rows: u64,
}

impl LateSessions {
    pub(super) fn try_new(recipe: &Recipe) -> highwater_core::Result<Self> {
        let micros = |name| Arc::new(Field::new(name, DataType::Int64, true));
        let fields = recipe.keys.iter().cloned();
        let fields: Vec<_> = fields.chain([micros("start"), micros("end")]).collect();
        Ok(Self {
            codec: Codec::try_new(&fields)?,
            seen: HashSet::new(),
            rows: 0,
        })
    }

    pub(super) fn begin(&mut self) {
        self.seen = HashSet::new();
        self.rows = 0;
    }

    /// The rows of the input.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// The different sessions of one row among them.
    pub(super) fn sessions(&self) -> u64 {
        self.seen.len() as u64
    }

    /// Takes the rows of `batch` that are in `mask`.
    pub(super) fn put(
        &mut self,
        batch: &RecordBatch,
        opened: &Opened,
        mask: &BooleanArray,
        (operator, cell): (&str, &BatchCell),
    ) -> Result<()> {
        let count = mask.true_count();
        if count == 0 {
            return Ok(());
        }
        self.rows += count as u64;
        let times: [ArrayRef; 2] = [
            Arc::new(opened.starts.clone()),
            Arc::new(opened.ends.clone()),
        ];
        let columns = opened.keys.iter().chain(&times);
        let columns: Vec<_> = columns
            .map(|column| filter(column, mask))
            .collect::<Result<_, _>>()?;
        self.seen.extend(self.codec.encode(&columns, count)?);
        if cell.late().wanted() {
            cell.late().put(operator, filter_record_batch(batch, mask)?);
        }
        Ok(())
    }
}
