//! The state of a session as one run of bytes: Arrow's row format of the state columns of its functions.

use std::fmt;

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::Result;
use highwater_core::Error;

/// Columns to bytes, a row each, and back.
pub(super) struct Codec {
    types: Vec<DataType>,
    rows: RowConverter,
}

impl Codec {
    /// The codec of columns like `fields`.
    ///
    /// # Errors
    /// `Unsupported` when a type has no row format.
    pub(super) fn try_new(fields: &[FieldRef]) -> highwater_core::Result<Self> {
        let types: Vec<_> = fields.iter().map(|f| f.data_type().clone()).collect();
        for (field, data_type) in fields.iter().zip(&types) {
            if !RowConverter::supports_fields(&[SortField::new(data_type.clone())]) {
                return Err(Error::unsupported(format!(
                    "`{}` of type {data_type} in the state of sessions",
                    field.name()
                ))
                .with_column(field.name())
                .with_hint("use another aggregate function, or cast its argument"));
            }
        }
        let rows = RowConverter::new(types.iter().cloned().map(SortField::new).collect())?;
        Ok(Self { types, rows })
    }

    /// Each of `count` rows.
    pub(super) fn encode(&self, columns: &[ArrayRef], count: usize) -> Result<Vec<Box<[u8]>>> {
        if self.types.is_empty() {
            return Ok(vec![Box::default(); count]);
        }
        let rows = self.rows.convert_columns(columns)?;
        Ok(rows.iter().map(|row| row.data().into()).collect())
    }

    /// The columns of rows that this codec encoded.
    pub(super) fn decode<'a>(
        &self,
        states: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Vec<ArrayRef>> {
        if self.types.is_empty() {
            return Ok(Vec::new());
        }
        let parser = self.rows.parser();
        let columns = self
            .rows
            .convert_rows(states.map(|state| parser.parse(state)))?;
        // Dictionaries come back as their values.
        let typed = columns.into_iter().zip(&self.types);
        let typed = typed.map(
            |(column, data_type)| match column.data_type() == data_type {
                true => Ok(column),
                false => Ok(cast(&column, data_type)?),
            },
        );
        typed.collect()
    }
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Codec").field(&self.types).finish()
    }
}
