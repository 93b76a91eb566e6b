//! A test as a script of steps: rows in, process, rows out, time passes, crash, restart.
//!
//! The steps are data. When one does not hold, the error shows the whole script with `=>` at it:
//!
//! ```text
//!    add_data [("a",), ("b",)]
//!    process
//! => check_new [['a', 2]]
//!    restart
//! 1 of 1 rows are missing [['a', 2]], 2 came too many [['a', 1], ['b', 1]]
//! ```
//!
//! Rows are added when the next step needs them, so that a step which lets the sink fail is in time.
//! All adds between two `process` are one micro-batch when the session runs on the test's own thread:
//! [`session`].

use std::fmt::{self, Debug};

use arrow::array::RecordBatch;
use highwater::prelude::*;
use highwater::{DataStreamWriter, IntoRow, OptionValue, Result, Timestamp};

use crate::ManualClock;
use crate::conformance::compare;
use crate::harness::Harness;
use crate::sink::INJECTED;
use crate::value::{self, Row, show};

/// A session whose queries share the thread of the test: between two awaits of the test nothing runs,
/// so that several adds are one micro-batch.
///
/// # Errors
/// When the session is refused.
///
/// # Panics
/// Outside a tokio runtime.
pub fn session() -> Result<StreamSession> {
    StreamSession::builder()
        .runtime(tokio::runtime::Handle::current())
        .build()
}

/// A streaming frame and the script it is put through.
#[derive(Debug)]
#[must_use = "a script does nothing until `run`"]
pub struct TestStream {
    harness: Harness,
    steps: Vec<Step>,
    /// Adds that no step has needed yet.
    waiting: Adds,
}

/// What is to be added, in order.
#[derive(Default)]
struct Adds(Vec<Act>);

impl Debug for Adds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} adds", self.0.len())
    }
}

type Act = Box<dyn FnOnce() -> Result<()> + Send>;

/// One step of a script.
enum Step {
    /// Rows for a stream: what it is called, and how it is done.
    Add(String, Act),
    /// Time passes: what it is called, and how it is done.
    Advance(String, Act),
    Process,
    CheckNew(Vec<Row>),
    CheckLast(Vec<Row>, Order),
    CheckSql(StreamSession, String, Vec<Row>),
    CheckWatermark(String),
    CheckLate(u64),
    Finish,
    Crash,
    Abort,
    Restart,
    ExpectError(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Any,
    AsGiven,
}

impl TestStream {
    /// A script for `frame` in an output mode, with a new checkpoint.
    ///
    /// # Errors
    /// When the checkpoint's directory cannot be made.
    pub fn new(frame: StreamFrame, mode: OutputMode) -> Result<Self> {
        Ok(Self {
            harness: Harness::new(frame, mode)?,
            steps: Vec::new(),
            waiting: Adds::default(),
        })
    }

    /// Runs under another trigger.
    pub fn with_trigger(mut self, trigger: Trigger) -> Self {
        self.harness = self.harness.with_trigger(trigger);
        self
    }

    /// Gives the query an option, by Spark's name: `with_option("flushOnEnd", true)`.
    pub fn with_option(self, key: &str, value: impl Into<OptionValue>) -> Self {
        let (key, OptionValue(value)) = (key.to_owned(), value.into());
        self.with_writer(move |writer| writer.option(key.as_str(), value.as_str()))
    }

    /// Says something to the writer at every start: `|w| w.late_rows_to("late")`.
    pub fn with_writer(
        mut self,
        setting: impl Fn(DataStreamWriter) -> DataStreamWriter + Send + Sync + 'static,
    ) -> Self {
        self.harness = self.harness.with_writer(setting);
        self
    }

    /// Rows become available to a stream.
    pub fn add_data<R>(self, stream: &MemoryStream, rows: impl IntoIterator<Item = R>) -> Self
    where
        R: IntoRow + Debug + Send + 'static,
    {
        let rows: Vec<R> = rows.into_iter().collect();
        let name = format!("add_data {rows:?}");
        let stream = stream.clone();
        self.then(Step::Add(
            name,
            Box::new(move || stream.add_data(rows).map(drop)),
        ))
    }

    /// A RecordBatch becomes available to a stream.
    pub fn add_batch(self, stream: &MemoryStream, rows: RecordBatch) -> Self {
        let name = format!("add_batch of {} rows", rows.num_rows());
        let stream = stream.clone();
        self.then(Step::Add(
            name,
            Box::new(move || stream.add_batch(rows).map(drop)),
        ))
    }

    /// Time passes on the session's clock.
    pub fn advance_clock(self, clock: &ManualClock, by: &str) -> Self {
        let (clock, by) = (clock.clone(), by.to_owned());
        let name = format!("advance_clock {by}");
        self.then(Step::Advance(
            name,
            Box::new(move || clock.advance(by.as_str())),
        ))
    }

    /// Starts the query if need be and runs it until all that was added has been processed.
    pub fn process(self) -> Self {
        self.then(Step::Process)
    }

    /// The rows that came since the last check, in any order.
    pub fn check_new(self, rows: impl IntoIterator<Item = Row>) -> Self {
        self.then(Step::CheckNew(rows.into_iter().collect()))
    }

    /// The rows of the last micro-batch, in any order: in complete mode, the result table.
    pub fn check_last(self, rows: impl IntoIterator<Item = Row>) -> Self {
        self.then(Step::CheckLast(rows.into_iter().collect(), Order::Any))
    }

    /// The rows of the last micro-batch, in this order.
    pub fn check_last_in_order(self, rows: impl IntoIterator<Item = Row>) -> Self {
        self.then(Step::CheckLast(rows.into_iter().collect(), Order::AsGiven))
    }

    /// What a batch query answers now, in any order: of the table that keeps late rows, for instance.
    pub fn check_sql(
        self,
        session: &StreamSession,
        sql: &str,
        rows: impl IntoIterator<Item = Row>,
    ) -> Self {
        let rows = rows.into_iter().collect();
        self.then(Step::CheckSql(session.clone(), sql.into(), rows))
    }

    /// The watermark that the next micro-batch would run with: `2024-05-01 12:00:00`; 1970 before it first moves.
    pub fn check_watermark(self, time: &str) -> Self {
        self.then(Step::CheckWatermark(time.into()))
    }

    /// How many late rows the operators counted since this was last checked.
    pub fn check_late(self, rows: u64) -> Self {
        self.then(Step::CheckLate(rows))
    }

    /// Starts the query if need be and waits until it ends by itself; the next `process` starts it again.
    pub fn finish(self) -> Self {
        self.then(Step::Finish)
    }

    /// Processes, and the sink fails in the first micro-batch, before anything of it is recorded.
    pub fn crash(self) -> Self {
        self.then(Step::Crash)
    }

    /// Drops the query wherever it is.
    pub fn abort(self) -> Self {
        self.then(Step::Abort)
    }

    /// Stops the query; the next `process` starts it again from its checkpoint.
    pub fn restart(self) -> Self {
        self.then(Step::Restart)
    }

    /// Processes; the query must be refused or fail, with these words in its error.
    pub fn expect_error(self, words: &str) -> Self {
        self.then(Step::ExpectError(words.into()))
    }

    /// Runs the script and stops the query.
    ///
    /// # Errors
    /// `User` when a step does not hold: its message is the script with `=>` at the step.
    pub async fn run(mut self) -> Result<()> {
        let steps = std::mem::take(&mut self.steps);
        let names: Vec<String> = steps.iter().map(Step::to_string).collect();
        for (index, step) in steps.into_iter().enumerate() {
            if let Err(wrong) = self.step(step).await {
                return Err(failure(&names, index, &wrong));
            }
        }
        self.harness.stop().await
    }

    fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    async fn step(&mut self, step: Step) -> std::result::Result<(), String> {
        match step {
            Step::Add(_, act) => {
                self.waiting.0.push(act);
                Ok(())
            }
            Step::Advance(_, act) => self.add().and_then(|()| act()).map_err(told),
            Step::Process => {
                self.add().map_err(told)?;
                self.harness.process().await.map_err(told)
            }
            Step::Finish => {
                self.add().map_err(told)?;
                self.harness.finish().await.map_err(told)
            }
            Step::Crash => {
                self.harness.sink().fail_at(1);
                self.fails_with(INJECTED).await
            }
            Step::ExpectError(words) => self.fails_with(&words).await,
            Step::Restart => self.harness.stop().await.map_err(told),
            Step::Abort => self.harness.abort().await.map_err(told),
            Step::CheckNew(rows) => {
                let new = self.harness.take_new().map_err(told)?.concat();
                agree(&rows, &new, Order::Any)
            }
            Step::CheckLast(rows, order) => {
                let last = self.harness.last().map_err(told)?;
                agree(&rows, &last, order)
            }
            Step::CheckSql(session, sql, rows) => {
                let answer = ask(&session, &sql).await.map_err(told)?;
                agree(&rows, &answer, Order::Any)
            }
            Step::CheckWatermark(time) => self.watermark_is(&time),
            Step::CheckLate(rows) => same("late rows", &rows, &self.harness.take_late()),
        }
    }

    fn watermark_is(&self, time: &str) -> std::result::Result<(), String> {
        let expected: Timestamp = time.parse().map_err(told)?;
        let query = self.harness.query().ok_or("the query is not started")?;
        let actual = query.watermark().ok_or("the query has no watermark")?;
        same("the watermark", &expected, &actual)
    }

    fn add(&mut self) -> Result<()> {
        self.waiting.0.drain(..).try_for_each(|add| add())
    }

    async fn fails_with(&mut self, words: &str) -> std::result::Result<(), String> {
        self.add().map_err(told)?;
        let Err(error) = self.harness.process().await else {
            return Err("expected an error, none came".into());
        };
        let text = format!("{error:?}");
        if !text.contains(words) {
            return Err(format!("the error does not say `{words}`: {text}"));
        }
        self.harness.stop().await.map_err(told)
    }
}

async fn ask(session: &StreamSession, sql: &str) -> Result<Vec<Row>> {
    value::rows(&session.sql(sql).await?.collect().await?)
}

fn same<T: PartialEq + fmt::Display>(
    what: &str,
    expected: &T,
    actual: &T,
) -> std::result::Result<(), String> {
    if expected == actual {
        return Ok(());
    }
    Err(format!("{what}: expected {expected}, found {actual}"))
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn told(error: Error) -> String {
    format!("{error:?}")
}

fn agree(expected: &[Row], actual: &[Row], order: Order) -> std::result::Result<(), String> {
    match compare::difference(expected, actual, order == Order::AsGiven) {
        Some(what) => Err(what),
        None => Ok(()),
    }
}

fn failure(names: &[String], at: usize, wrong: &str) -> Error {
    let mut script = String::from("a step of the script does not hold:\n");
    for (index, name) in names.iter().enumerate() {
        let mark = if index == at { "=>" } else { "  " };
        script.push_str(&format!("{mark} {name}\n"));
    }
    script.push_str(wrong);
    Error::user(script)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(name, _) | Self::Advance(name, _) => f.write_str(name),
            Self::Process => f.write_str("process"),
            Self::CheckNew(rows) => write!(f, "check_new {}", all(rows)),
            Self::CheckLast(rows, Order::Any) => write!(f, "check_last {}", all(rows)),
            Self::CheckLast(rows, _) => write!(f, "check_last_in_order {}", all(rows)),
            Self::CheckSql(_, sql, rows) => write!(f, "check_sql {sql}: {}", all(rows)),
            Self::CheckWatermark(time) => write!(f, "check_watermark {time}"),
            Self::CheckLate(rows) => write!(f, "check_late {rows}"),
            Self::Finish => f.write_str("finish"),
            Self::Crash => f.write_str("crash"),
            Self::Abort => f.write_str("abort"),
            Self::Restart => f.write_str("restart"),
            Self::ExpectError(words) => write!(f, "expect_error `{words}`"),
        }
    }
}

impl Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn all(rows: &[Row]) -> String {
    let rows: Vec<String> = rows.iter().map(|row| show(row)).collect();
    format!("[{}]", rows.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row;
    use crate::value::Value;

    fn counts(words: &MemoryStream) -> Result<TestStream> {
        let counts = words.to_frame().group_by([col("word")]).count()?;
        TestStream::new(counts, OutputMode::Update)
    }

    #[tokio::test]
    async fn counts_survive_a_crash_and_a_restart() -> Result<()> {
        let session = session()?;
        let words = MemoryStream::new(&session, "word STRING")?;
        counts(&words)?
            .add_data(&words, [("a",), ("b",), ("a",)])
            .process()
            .check_new([row!["a", 2], row!["b", 1]])
            .add_data(&words, [("a",)])
            .crash()
            .process()
            .check_new([row!["a", 3]])
            .restart()
            .add_data(&words, [("b",)])
            .process()
            .check_new([row!["b", 2]])
            .run()
            .await
    }

    #[tokio::test]
    async fn the_watermark_and_late_rows_can_be_checked() -> Result<()> {
        let session = session()?;
        let events = MemoryStream::new(&session, "ts TIMESTAMP, k STRING")?;
        let frame = events.to_frame().with_watermark("ts", "5 seconds")?;
        TestStream::new(frame.drop_duplicates(&["k", "ts"])?, OutputMode::Append)?
            .add_data(&events, [("2024-05-01 00:00:20", "a")])
            .process()
            .check_new([row![Value::time("2024-05-01 00:00:20"), "a"]])
            .check_watermark("2024-05-01 00:00:15")
            .check_late(0)
            .restart()
            .add_data(
                &events,
                [("2024-05-01 00:00:15", "b"), ("2024-05-01 00:00:16", "c")],
            )
            .process()
            .check_new([row![Value::time("2024-05-01 00:00:16"), "c"]])
            .check_late(1)
            .check_sql(&session, "SELECT 1 AS one", [row![1]])
            .run()
            .await
    }

    #[tokio::test]
    async fn a_query_may_end_by_itself() -> Result<()> {
        let session = session()?;
        let words = MemoryStream::new(&session, "word STRING")?;
        counts(&words)?
            .with_trigger(Trigger::AvailableNow)
            .add_data(&words, [("a",)])
            .finish()
            .check_new([row!["a", 1]])
            .add_data(&words, [("a",)])
            .finish()
            .check_new([row!["a", 2]])
            .run()
            .await
    }

    #[tokio::test]
    async fn a_failure_shows_the_script_and_the_step() -> Result<()> {
        let session = session()?;
        let words = MemoryStream::new(&session, "word STRING")?;
        let script = counts(&words)?
            .add_data(&words, [("a",)])
            .process()
            .check_new([row!["a", 2]])
            .restart();
        let error = script.run().await.expect_err("the count is 1");
        assert_eq!(
            error.message(),
            "a step of the script does not hold:\n   add_data [(\"a\",)]\n   process\n\
             => check_new [['a', 2]]\n   restart\n\
             1 of 1 rows are missing [['a', 2]], 1 came too many [['a', 1]]"
        );
        Ok(())
    }
}
