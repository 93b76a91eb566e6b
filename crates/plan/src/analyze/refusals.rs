//! The texts of what is refused: Spark's words first, then the way out.

use datafusion::common::JoinType;
use datafusion::logical_expr::Expr;
use highwater_core::{Error, OutputMode};

const MODE: &str = "STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION";
const OPERATION: &str = "UNSUPPORTED_STREAMING_OPERATION";

fn refuse(operator: &str, message: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::unsupported(message)
        .with_condition(OPERATION)
        .with_operator(operator)
        .with_hint(hint)
}

fn refuse_mode(operator: &str, mode: OutputMode, what: &str, hint: &str) -> Error {
    refuse(
        operator,
        format!(
            "Invalid streaming output mode: {mode}. This output mode is not supported for {what} \
             on streaming DataFrames/DataSets"
        ),
        hint,
    )
    .with_condition(MODE)
}

pub(super) fn not_streaming() -> Error {
    Error::invalid("`write_stream` can be called only on a streaming frame")
        .with_condition("WRITE_STREAM_NOT_ALLOWED")
        .with_hint("read the input with read_stream(), or write the frame as a batch")
}

pub(super) fn complete_without_aggregate() -> Error {
    refuse_mode(
        "aggregate",
        OutputMode::Complete,
        "no streaming aggregations",
        "use append or update mode, or aggregate",
    )
}

pub(super) fn append_aggregate() -> Error {
    refuse_mode(
        "aggregate",
        OutputMode::Append,
        "streaming aggregations without watermark",
        "put a watermark on the event time and group by it or by a window of it, or use update or \
         complete mode: without that a group is never finished",
    )
}

pub(super) fn unknown_mode(mode: OutputMode) -> Error {
    refuse_mode(
        "query",
        mode,
        "this query",
        "use append, update or complete",
    )
}

pub(super) fn above_aggregate(operator: &str, mode: OutputMode) -> Error {
    let what = match operator {
        "dedup" => "a deduplication by event time over the result of an aggregate",
        "join" => "a join with the result of an aggregate",
        _ => "an aggregate over the result of another",
    };
    refuse(
        operator,
        format!(
            "Detected pattern of possible 'correctness' issue due to global watermark. The query \
             contains {what}, whose rows still change in {mode} mode"
        ),
        "use append mode, with a watermark; or write the first result to a table, and go on from it in a second query",
    )
}

pub(super) fn session_without_key() -> Error {
    refuse(
        "session_window",
        "Global aggregation with session window in streaming query is not supported",
        "group by the session and a key",
    )
}

pub(crate) fn within_without_watermark() -> Error {
    refuse(
        "dedup",
        "dropDuplicatesWithinWatermark is not supported on streaming DataFrames/DataSets without \
         watermark",
        "put a watermark on the event time before: with_watermark(column, delay)",
    )
}

pub(super) fn redefined_watermark() -> Error {
    refuse(
        "watermark",
        "Redefining watermark is disallowed: there is one already on the way of these rows",
        "keep the first watermark; it goes with its column through the query",
    )
}

pub(super) fn distinct_on() -> Error {
    refuse(
        "distinct on",
        "DISTINCT ON is not supported on streaming DataFrames/Datasets",
        "use drop_duplicates(columns), which keeps the first row of each key",
    )
}

pub(super) fn sort(mode: OutputMode) -> Error {
    refuse(
        "sort",
        format!(
            "Sorting is not supported on streaming DataFrames/Datasets, unless it is on aggregated \
             DataFrame/Dataset in Complete output mode (here: {mode})"
        ),
        "sort what the sink holds, or aggregate in complete mode",
    )
}

pub(super) fn limit_in_update() -> Error {
    refuse(
        "limit",
        "Limits are not supported on streaming DataFrames/Datasets in Update output mode",
        "use append mode, or complete mode with an aggregate",
    )
}

pub(super) fn offset() -> Error {
    refuse(
        "offset",
        "Offset is not supported on streaming DataFrames/Datasets",
        "skip the rows where the result is read",
    )
}

pub(super) fn computed_limit() -> Error {
    refuse(
        "limit",
        "LIMIT and OFFSET must be numbers in a streaming query",
        "write the number itself",
    )
}

pub(super) fn union_with_static() -> Error {
    refuse(
        "union",
        "Union between streaming and batch DataFrames/Datasets is not supported",
        "read the static part as a stream too",
    )
}

pub(super) fn over_window(exprs: &[Expr]) -> Error {
    let functions: Vec<_> = exprs.iter().map(ToString::to_string).collect();
    refuse(
        "window function",
        format!(
            "Window function is not supported in {} on streaming DataFrames/Datasets",
            functions.join(", ")
        ),
        "group by window(ts, '10 minutes') and the key instead of OVER (…)",
    )
    .with_condition("NON_TIME_WINDOW_NOT_SUPPORTED_IN_STREAMING")
}

pub(super) fn streaming_subquery() -> Error {
    refuse(
        "subquery",
        "A subquery expression over a streaming DataFrame/Dataset is not supported",
        "let the subquery read a static table",
    )
    .with_condition("INVALID_SUBQUERY_EXPRESSION.STREAMING_QUERY")
}

pub(super) fn recursive_query() -> Error {
    refuse(
        "recursive query",
        "WITH RECURSIVE is not supported in a streaming query",
        "compute the recursive part as a table before",
    )
}

pub(super) fn foreign_node(name: &str) -> Error {
    refuse(
        name,
        format!("the operator {name} is not known to work on streaming DataFrames/Datasets"),
        "apply it in foreach_batch, where each micro-batch is an ordinary frame",
    )
}

pub(super) fn command(what: &str) -> Error {
    refuse(
        "command",
        format!(
            "Queries with streaming sources must be executed with write_stream().start(), not by {what}"
        ),
        "start the query that is inside",
    )
}

pub(super) fn intersect() -> Error {
    refuse(
        "intersect",
        "Intersect of streaming DataFrames/Datasets is not supported",
        "join with the static table, or filter with IN (SELECT …) over it",
    )
}

pub(super) fn except() -> Error {
    refuse(
        "except",
        "Except on a streaming DataFrame/Dataset on the right is not supported",
        "let the right side be a static table",
    )
}

pub(super) fn except_all() -> Error {
    refuse(
        "except",
        "EXCEPT ALL between a streaming and a static DataFrame/Dataset is not supported: it would have to count the \
         rows that were taken away",
        "use EXCEPT, or filter with NOT IN (SELECT …) over the static table, which takes all of them away",
    )
}

/// A join of two streams in a mode in which its rows would not be final.
pub(super) fn join_mode(join_type: JoinType, mode: OutputMode) -> Error {
    let name = join_name(join_type);
    let (mode, modes, hint) = match (join_type, mode) {
        (JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi, mode) => (
            mode,
            "Append and Update output modes",
            "use append or update mode",
        ),
        (_, mode) => (mode, "Append output mode", "use append mode"),
    };
    let mode = match mode {
        OutputMode::Update => "Update",
        _ => "Complete",
    };
    refuse(
        "join",
        format!(
            "{name} join between two streaming DataFrames/Datasets is not supported in {mode} \
             output mode, only in {modes}"
        ),
        hint,
    )
}

/// An outer, semi or anti join whose rows could never be let go.
pub(crate) fn join_unbounded(join_type: JoinType) -> Error {
    refuse(
        "join",
        format!(
            "Stream-stream {} join between two streaming DataFrame/Datasets is not supported without a watermark in \
             the join keys, or a watermark on the nullable side and an appropriate range condition",
            join_name(join_type)
        ),
        "put a watermark on the event time of both sides, and limit it in the condition: \
         `l.k = r.k AND r.ts >= l.ts AND r.ts <= l.ts + INTERVAL '10' SECOND`, or `l.k = r.k AND l.ts = r.ts`",
    )
}

/// An outer or anti join that Spark accepts, and whose unmatched rows never come out of it.
pub(crate) fn join_never_completes(join_type: JoinType) -> Error {
    let side = match join_type {
        JoinType::Right | JoinType::RightAnti => "right",
        _ => "left",
    };
    refuse(
        "join",
        format!(
            "Stream-stream {} join between two streaming DataFrame/Datasets is not supported when the {side} side has \
             no watermark of its own: its rows would wait for ever, and those without a match never come out",
            join_name(join_type)
        ),
        format!(
            "put a watermark on the event time of the {side} side too, and keep that column in the join's condition"
        ),
    )
}

/// A join of two streams that is none of SQL's.
pub(crate) fn join_with_mark(join_type: JoinType) -> Error {
    refuse(
        "join",
        format!(
            "{} joins of two streaming DataFrames/Datasets are not supported",
            join_name(join_type)
        ),
        "use LEFT SEMI JOIN",
    )
}

/// A join of two streams that compares nothing for being equal.
pub(crate) fn join_without_equality() -> Error {
    refuse(
        "join",
        "Stream-stream join without equality predicate is not supported",
        "compare a column of each side with `=` in the join's condition, beside what else it says",
    )
}

/// A join with a static table in which rows of the table would have to wait for the end of the stream.
pub(crate) fn join_with_static(join_type: JoinType, stream_left: bool) -> Error {
    let name = join_name(join_type);
    let sides = match stream_left {
        true => "left and a static DataFrame/Dataset on the right",
        false => "right and a static DataFrame/Dataset on the left",
    };
    let instead = match join_type {
        JoinType::LeftSemi | JoinType::RightSemi => "stream LEFT SEMI JOIN table",
        JoinType::LeftAnti | JoinType::RightAnti => "stream LEFT ANTI JOIN table",
        _ if stream_left => "stream LEFT JOIN table",
        _ => "table RIGHT JOIN stream",
    };
    refuse(
        "join",
        format!("{name} join with a streaming DataFrame/Dataset on the {sides} is not supported"),
        format!(
            "keep the rows of the stream (`{instead}`): which rows of the table find no match is known only when the \
             stream has ended"
        ),
    )
}

fn join_name(join_type: JoinType) -> &'static str {
    match join_type {
        JoinType::Inner => "Inner",
        JoinType::Left => "LeftOuter",
        JoinType::Right => "RightOuter",
        JoinType::Full => "FullOuter",
        JoinType::LeftSemi => "LeftSemi",
        JoinType::RightSemi => "RightSemi",
        JoinType::LeftAnti => "LeftAnti",
        JoinType::RightAnti => "RightAnti",
        JoinType::LeftMark => "LeftMark",
        JoinType::RightMark => "RightMark",
    }
}
