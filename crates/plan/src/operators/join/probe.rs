//! Rows of one side meet the rows of the other: a batch at a time, and never more candidates than a batch has rows.
//!
//! ```text
//!  rows ─► hashes ─► chains of the other side ─► candidates ─► equal keys? ─► condition? ─► pairs
//!            a key with 10^5 rows on both sides: it goes on from where it stopped ◄──────────┘
//! ```

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array,
    new_null_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::kernels::cmp::{eq, not_distinct};
use arrow::compute::{and, cast, take};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::common::{NullEquality, Result};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr_common::datum::compare_op_for_nested;
use highwater_core::Error;

use super::gather::Gather;
use super::index::NONE;
use super::recipe::{Keeps, Recipe, Residual, Side, SideRecipe};
use super::side::{Hashed, SideState};
use crate::cell::BatchNumbers;

/// The seed of the hashes, which no file has.
const SEED: u64 = 0x6869_6768_7761_7465;

/// The keys of some rows, and their hashes.
pub(super) struct Keys {
    columns: Vec<ArrayRef>,
    hashes: Vec<u32>,
    can_match: Option<NullBuffer>,
}

impl Keys {
    pub(super) fn of<'a>(&'a self, rows: &'a RecordBatch) -> Hashed<'a> {
        Hashed {
            rows,
            hashes: &self.hashes,
            can_match: self.can_match.as_ref(),
        }
    }

    /// The keys of the rows that `keep` tells, without their columns.
    fn only(&self, keep: &BooleanBuffer) -> Self {
        let hashes = keep.set_indices().map(|row| self.hashes[row]);
        let can = self.can_match.as_ref();
        let can = can.map(|can| keep.set_indices().map(|row| can.is_valid(row)).collect());
        Self {
            columns: Vec::new(),
            hashes: hashes.collect(),
            can_match: can.map(|can: Vec<bool>| NullBuffer::from(can)),
        }
    }
}

/// The keys of `rows`.
pub(super) fn hashed(recipe: &SideRecipe, rows: &RecordBatch) -> Result<Keys> {
    let columns = recipe.keys.iter().zip(&recipe.key_types);
    let columns = columns.map(|(at, t)| comparable(rows.column(*at), t));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let mut hashes = vec![0; rows.num_rows()];
    create_hashes(&columns, &RandomState::with_seed(SEED), &mut hashes)?;
    let can_match = match recipe.null_equality {
        NullEquality::NullEqualsNull => None,
        NullEquality::NullEqualsNothing => {
            let nulls: Vec<_> = columns.iter().map(|c| c.logical_nulls()).collect();
            NullBuffer::union_many(nulls.iter().map(Option::as_ref))
        }
    };
    Ok(Keys {
        hashes: hashes
            .iter()
            .map(|hash| (hash ^ (hash >> 32)) as u32)
            .collect(),
        can_match: can_match.filter(|nulls| nulls.null_count() > 0),
        columns,
    })
}

/// A key in the type and form in which equal values are the same: one zero, one NaN.
pub(crate) fn comparable(column: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let column = match column.data_type() == to {
        true => Arc::clone(column),
        false => cast(column, to)?,
    };
    Ok(match to {
        DataType::Float64 => Arc::new(
            column
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN } else { v + 0.0 }),
        ),
        DataType::Float32 => Arc::new(
            column
                .as_primitive::<Float32Type>()
                .unary::<_, Float32Type>(|v| if v.is_nan() { f32::NAN } else { v + 0.0 }),
        ),
        _ => column,
    })
}

/// A batch of one side on its way through the rows of the other.
pub(super) struct Probe {
    side: Side,
    pub(super) rows: RecordBatch,
    keys: Keys,
    /// The first row of the other side that each row may match.
    firsts: Vec<u32>,
    walk: Walk,
    /// The rows that have matched.
    matched: Vec<bool>,
    /// Pairs, or rows of the other side alone, that are to come out.
    found: Pairs,
    /// Rows of the other side that matched and are not needed any more.
    taken: Vec<u32>,
}

/// Where a probe stands.
struct Walk {
    /// The row that looks for matches.
    row: usize,
    /// The next row of the other side it may match.
    at: u32,
    /// Candidates it may still have before the next row gets its turn.
    tries: usize,
    /// The next row to begin with.
    upcoming: usize,
    /// Rows that have had their turn and may match more, and where they go on.
    waiting: Vec<(u32, u32)>,
}

/// The first candidates of a row of which one match is enough: most have it among them.
const TRIES: usize = 4;
/// Rows of the other side that a step looks at, as so many batches: not all of them are candidates.
const LOOKS: usize = 4;

/// Rows of this side and of the other.
#[derive(Default)]
struct Pairs {
    rows: Vec<u32>,
    slots: Vec<u32>,
}

/// What a step of a probe gave.
pub(super) enum Step {
    Rows(RecordBatch),
    More,
    Done,
}

impl Probe {
    /// `rows` of `side`, before they look at `other`.
    pub(super) fn new(
        recipe: &Recipe,
        side: Side,
        rows: RecordBatch,
        other: &SideState,
    ) -> Result<Self> {
        let keys = hashed(recipe.side(side), &rows)?;
        let hashed = keys.of(&rows);
        let firsts = (0..rows.num_rows()).map(|row| {
            hashed
                .hash(row)
                .map_or(NONE, |hash| other.index.first(hash))
        });
        let firsts: Vec<u32> = firsts.collect();
        Ok(Self {
            side,
            walk: Walk {
                row: 0,
                at: NONE,
                tries: 0,
                upcoming: 0,
                waiting: Vec::new(),
            },
            matched: vec![false; rows.num_rows()],
            firsts,
            keys,
            rows,
            found: Pairs::default(),
            taken: Vec::new(),
        })
    }

    /// Looks at up to `size` candidates.
    pub(super) fn step(
        &mut self,
        recipe: &Recipe,
        other: &mut SideState,
        size: usize,
    ) -> Result<Step> {
        let (candidates, more) = self.candidates(recipe, other, size);
        if candidates.rows.is_empty() {
            if more {
                return Ok(Step::More);
            }
            if !self.found.slots.is_empty() {
                return self.come_out(recipe, other).map(Step::Rows);
            }
            return Ok(Step::Done);
        }
        let pairs = self.verify(recipe, other, candidates)?;
        self.note(recipe, other, &pairs);
        let takes = !self.taken.is_empty();
        let come = self.found.slots.len() >= size || (takes && !self.found.slots.is_empty());
        let rows = come.then(|| self.come_out(recipe, other)).transpose()?;
        if takes {
            self.take_out(other);
        }
        Ok(rows.map_or(Step::More, Step::Rows))
    }

    /// Rows of the other side leave that matched and are not needed any more: nobody is to look at them again.
    fn take_out(&mut self, other: &mut SideState) {
        while self.walk.at != NONE && other.is_matched(self.walk.at) {
            self.walk.at = other.index.after(self.walk.at).1;
        }
        other.take_matched(&std::mem::take(&mut self.taken));
    }

    /// The next rows of the other side whose hash is that of a row, and whether there may be more.
    fn candidates(&mut self, recipe: &Recipe, other: &SideState, size: usize) -> (Pairs, bool) {
        let once = matches!(recipe.side(self.side).keeps, Keeps::Semi | Keeps::Anti);
        let mut pairs = Pairs::default();
        let mut looks = LOOKS * size;
        while pairs.rows.len() < size && looks > 0 {
            let row = self.walk.row;
            if self.walk.at == NONE || (once && self.matched[row]) {
                if !self.next_row(recipe, other, once) {
                    return (pairs, false);
                }
                continue;
            }
            looks -= 1;
            let at = self.walk.at;
            let (its, next) = other.index.after(at);
            self.walk.at = next;
            if its != self.keys.hashes[row] {
                continue;
            }
            pairs.rows.push(row as u32);
            pairs.slots.push(at);
            self.walk.tries -= 1;
            if self.walk.tries == 0 && next != NONE {
                self.walk.waiting.push((row as u32, next));
                self.walk.at = NONE;
            }
        }
        (pairs, true)
    }

    /// Goes on with the next row, or one that waits; false when there is none.
    fn next_row(&mut self, recipe: &Recipe, other: &SideState, once: bool) -> bool {
        let row = self.walk.upcoming;
        if row < self.firsts.len() {
            // Of a semi or anti join, rows of the other side may have left since the probe began.
            let other_leaves = matches!(
                recipe.side(self.side.other()).keeps,
                Keeps::Semi | Keeps::Anti
            );
            let first = self.firsts[row];
            self.walk.at = match first != NONE && other_leaves {
                true => other.index.first(self.keys.hashes[row]),
                false => first,
            };
            self.walk.tries = if once { TRIES } else { usize::MAX };
            (self.walk.row, self.walk.upcoming) = (row, row + 1);
            return true;
        }
        let Some((row, at)) = self.walk.waiting.pop() else {
            return false;
        };
        (self.walk.row, self.walk.at, self.walk.tries) = (row as usize, at, usize::MAX);
        true
    }

    /// The candidates whose keys are equal and that the condition lets pass.
    fn verify(&self, recipe: &Recipe, other: &SideState, candidates: Pairs) -> Result<Pairs> {
        let found = Found::new(self, other, &candidates);
        let equal = found.equal_keys(recipe)?;
        let Some(residual) = &recipe.residual else {
            return Ok(candidates.only(&equal));
        };
        if equal.null_count() == 0 && equal.true_count() == equal.len() {
            let pass = found.passes(residual)?;
            return Ok(candidates.only(&pass));
        }
        let pairs = candidates.only(&equal);
        if pairs.rows.is_empty() {
            return Ok(pairs);
        }
        let pass = Found::new(self, other, &pairs).passes(residual)?;
        Ok(pairs.only(&pass))
    }

    /// Notes what matched, and what of it is to come out.
    fn note(&mut self, recipe: &Recipe, other: &mut SideState, pairs: &Pairs) {
        pairs
            .rows
            .iter()
            .for_each(|row| self.matched[*row as usize] = true);
        let mut fresh = Vec::new();
        match recipe.side(self.side.other()).keeps {
            Keeps::Plain => {}
            Keeps::Outer => {
                other.mark(&pairs.slots, &mut fresh);
                other.note_matched(&fresh);
            }
            Keeps::Semi => {
                other.mark(&pairs.slots, &mut fresh);
                self.found.slots.extend(&fresh);
                self.taken.extend(&fresh);
            }
            Keeps::Anti => {
                other.mark(&pairs.slots, &mut fresh);
                self.taken.extend(&fresh);
            }
        }
        if recipe.only().is_none() {
            self.found.rows.extend(&pairs.rows);
            self.found.slots.extend(&pairs.slots);
        }
    }

    /// What was found, as rows of the result.
    fn come_out(&mut self, recipe: &Recipe, other: &SideState) -> Result<RecordBatch> {
        let pairs = std::mem::take(&mut self.found);
        let found = Found::new(self, other, &pairs);
        let columns = recipe.output.iter();
        let columns = columns.map(|(side, at)| found.column(*side, *at));
        result(recipe, columns.collect::<Result<_>>()?, pairs.slots.len())
    }

    /// After the last step: the rows come out that semi joins give at once, and the others are put into their side.
    pub(super) fn finish(
        self,
        recipe: &Recipe,
        own: &mut SideState,
        numbers: &BatchNumbers,
    ) -> Result<Option<RecordBatch>> {
        let keeps = recipe.side(self.side).keeps;
        let kept = self.kept(recipe, own, numbers)?;
        let matched = &self.matched;
        let total = self.rows.num_rows();
        if kept.count_set_bits() == total {
            let marks = |row: usize| matched[row];
            let marks = (keeps == Keeps::Outer).then_some(&marks as &dyn Fn(usize) -> bool);
            own.append(&self.keys.of(&self.rows), marks)?;
        } else if kept.count_set_bits() > 0 {
            let rows = filtered(&self.rows, &kept)?;
            let places: Vec<usize> = kept.set_indices().collect();
            let marks = |row: usize| matched[places[row]];
            let marks = (keeps == Keeps::Outer).then_some(&marks as &dyn Fn(usize) -> bool);
            own.append(&self.keys.only(&kept).of(&rows), marks)?;
        }
        if keeps != Keeps::Semi {
            return Ok(None);
        }
        let out = BooleanBuffer::collect_bool(total, |row| matched[row]);
        match out.count_set_bits() {
            0 => Ok(None),
            _ => alone(recipe, self.side, &filtered(&self.rows, &out)?).map(Some),
        }
    }

    /// The rows that are put into their side. Those of the left side are, though they may leave at once: rows of the
    /// right side are still to come (Spark).
    fn kept(
        &self,
        recipe: &Recipe,
        own: &SideState,
        numbers: &BatchNumbers,
    ) -> Result<BooleanBuffer> {
        let side = recipe.side(self.side);
        let bound = side.bound.as_ref().filter(|_| self.side == Side::Right);
        let leaving = match bound {
            Some(bound) => own.leaving(&self.rows, bound.until(numbers))?,
            None => None,
        };
        let can = self.keys.can_match.as_ref();
        Ok(BooleanBuffer::collect_bool(self.rows.num_rows(), |row| {
            let matched = self.matched[row];
            let leaves = leaving.as_ref().is_some_and(|leaves| leaves.value(row));
            let can_match = can.is_none_or(|can| can.is_valid(row)) && !leaves;
            match side.keeps {
                Keeps::Plain => can_match,
                Keeps::Outer => can_match || !matched,
                Keeps::Semi => can_match && !matched,
                Keeps::Anti => !matched,
            }
        }))
    }
}

/// The columns of pairs.
struct Found<'a> {
    probe: &'a Probe,
    rows: UInt32Array,
    theirs: Gather<'a>,
    count: usize,
}

impl<'a> Found<'a> {
    fn new(probe: &'a Probe, other: &'a SideState, pairs: &Pairs) -> Self {
        Self {
            probe,
            rows: UInt32Array::from(pairs.rows.clone()),
            theirs: Gather::new(other, &pairs.slots),
            count: pairs.slots.len(),
        }
    }

    fn column(&self, side: Side, at: usize) -> Result<ArrayRef> {
        match side == self.probe.side {
            true => Ok(take(self.probe.rows.column(at), &self.rows, None)?),
            false => self.theirs.column(at),
        }
    }

    fn equal_keys(&self, recipe: &Recipe) -> Result<BooleanArray> {
        let theirs = recipe.side(self.probe.side.other());
        let columns = theirs.keys.iter().zip(&theirs.key_types);
        let mut equal: Option<BooleanArray> = None;
        for (mine, (at, key_type)) in self.probe.keys.columns.iter().zip(columns) {
            let mine = take(mine, &self.rows, None)?;
            let their = comparable(&self.theirs.column(*at)?, key_type)?;
            let same = same(&mine, &their, theirs.null_equality)?;
            equal = Some(match equal {
                Some(before) => and(&before, &same)?,
                None => same,
            });
        }
        equal.ok_or_else(|| Error::internal("a join without keys").into())
    }

    fn passes(&self, residual: &Residual) -> Result<BooleanArray> {
        let columns = residual.columns.iter();
        let columns = columns.map(|(side, at)| self.column(*side, *at));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.count));
        let schema = Arc::clone(&residual.schema);
        let batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let pass = residual
            .condition
            .evaluate(&batch)?
            .into_array(self.count)?;
        let pass = pass.as_boolean_opt().cloned();
        pass.ok_or_else(|| Error::internal("the condition of a join is no boolean").into())
    }
}

impl Pairs {
    fn only(self, mask: &BooleanArray) -> Self {
        if mask.null_count() == 0 && mask.true_count() == mask.len() {
            return self;
        }
        let pass = match mask.nulls() {
            Some(valid) => mask.values() & valid.inner(),
            None => mask.values().clone(),
        };
        Self {
            rows: pass.set_indices().map(|at| self.rows[at]).collect(),
            slots: pass.set_indices().map(|at| self.slots[at]).collect(),
        }
    }
}

/// True where two keys are the same.
pub(crate) fn same(left: &ArrayRef, right: &ArrayRef, nulls: NullEquality) -> Result<BooleanArray> {
    let nested = left.data_type().is_nested();
    Ok(match nulls {
        NullEquality::NullEqualsNothing if nested => {
            compare_op_for_nested(Operator::Eq, left, right)?
        }
        NullEquality::NullEqualsNull if nested => {
            compare_op_for_nested(Operator::IsNotDistinctFrom, left, right)?
        }
        NullEquality::NullEqualsNothing => eq(left, right)?,
        NullEquality::NullEqualsNull => not_distinct(left, right)?,
    })
}

fn filtered(rows: &RecordBatch, keep: &BooleanBuffer) -> Result<RecordBatch> {
    let mask = BooleanArray::new(keep.clone(), None);
    Ok(arrow::compute::filter_record_batch(rows, &mask)?)
}

/// Rows of `side` as rows of the result, with nulls for the other side.
pub(super) fn alone(recipe: &Recipe, side: Side, rows: &RecordBatch) -> Result<RecordBatch> {
    let fields = recipe.schema.fields();
    let columns = recipe
        .output
        .iter()
        .zip(fields)
        .map(|((of, at), field)| match *of == side {
            true => Arc::clone(rows.column(*at)),
            false => new_null_array(field.data_type(), rows.num_rows()),
        });
    result(recipe, columns.collect(), rows.num_rows())
}

/// Rows at `slots` of `side` as rows of the result, with nulls for the other side.
pub(super) fn alone_at(
    recipe: &Recipe,
    side: Side,
    state: &SideState,
    slots: &[u32],
) -> Result<RecordBatch> {
    let gather = Gather::new(state, slots);
    let fields = recipe.schema.fields();
    let columns = recipe
        .output
        .iter()
        .zip(fields)
        .map(|((of, at), field)| match *of == side {
            true => gather.column(*at),
            false => Ok(new_null_array(field.data_type(), slots.len())),
        });
    result(recipe, columns.collect::<Result<_>>()?, slots.len())
}

fn result(recipe: &Recipe, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let schema = Arc::clone(&recipe.schema);
    Ok(RecordBatch::try_new_with_options(
        schema, columns, &options,
    )?)
}
