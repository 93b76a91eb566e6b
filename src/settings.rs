//! The settings `highwater.*`, a DataFusion config extension, and Spark's names for them.
//!
//! They are set with [`config`](crate::StreamSessionBuilder::config) or SQL's `SET highwater.… = …`; a
//! value that is wrong is refused when it is set. A query takes them when it starts.

use std::any::Any;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::Result as DataFusionResult;
use datafusion::common::config::{ConfigEntry, ConfigExtension, ExtensionOptions};
use datafusion::execution::SessionState;
use highwater_engine::{QuerySettings, SnapshotPolicy, WatermarkPolicy};
use highwater_storage::RetryPolicy;

use crate::{Error, IntoInterval, Result};

/// The settings of a session, as SQL knows them: `highwater.<field>`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// The folder under which a query without `checkpointLocation` gets one of its name; unset by default.
    pub checkpoint_location: Option<String>,
    /// Micro-batches without data run when the watermark has something to release; true by default.
    pub no_data_batches: bool,
    /// How the watermarks of several inputs become one: `min` (the default) or `max`.
    pub multiple_watermark_policy: WatermarkPolicy,
    /// The pause after a wake-up that brought nothing; 10 ms by default.
    pub polling_interval: Duration,
    /// So many committed micro-batches can be restored from the checkpoint at least; 100 by default.
    pub min_batches_to_retain: u64,
    /// A snapshot of part of the state is worth its file from so many records on, 4096 by default; a part has at most
    /// eight times as many. With fewer a restart has less to replay, and the checkpoint more and smaller files.
    pub snapshot_min_records: u64,
    /// So many progresses of a query are kept in memory; 100 by default.
    pub recent_progress: usize,
    /// A query that is started while a run of it is active stops that run; true by default.
    pub stop_active_run_on_restart: bool,
    /// How often an operation of an object store is tried again when it failed for a moment, such as a time-out; 4 by
    /// default, 0: never. It holds for checkpoints, and for files that are read and written; other errors are told at once.
    pub retry_attempts: u32,
    /// The longest pause before the first retry; 100 ms by default. Pauses are random, and their bound doubles from
    /// one retry to the next, up to 10 s.
    pub retry_first_delay: Duration,
    /// The folder in which [`to_table`](crate::DataStreamWriter::to_table) makes the directories of new tables; unset by default.
    pub warehouse: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        let query = QuerySettings::default();
        let retries = RetryPolicy::default();
        Self {
            checkpoint_location: None,
            no_data_batches: query.no_data_batches,
            multiple_watermark_policy: query.watermark_policy,
            polling_interval: query.polling,
            min_batches_to_retain: query.min_batches_to_retain,
            snapshot_min_records: query.snapshots.least_price,
            recent_progress: query.recent_progress,
            stop_active_run_on_restart: query.stop_active_run_on_restart,
            retry_attempts: retries.attempts,
            retry_first_delay: retries.first_delay,
            warehouse: None,
        }
    }
}

/// A setting: its field, Spark's name (empty where Spark has none), and what it is.
struct Known {
    field: &'static str,
    /// Empty where Spark has no such setting.
    spark: &'static str,
    about: &'static str,
}

const KNOWN: [Known; 11] = [
    Known {
        field: "checkpoint_location",
        spark: "spark.sql.streaming.checkpointLocation",
        about: "the folder for the checkpoints of queries that name none",
    },
    Known {
        field: "no_data_batches",
        spark: "spark.sql.streaming.noDataMicroBatches.enabled",
        about: "run micro-batches without data when the watermark has something to release",
    },
    Known {
        field: "multiple_watermark_policy",
        spark: "spark.sql.streaming.multipleWatermarkPolicy",
        about: "min or max of the inputs' watermarks",
    },
    Known {
        field: "polling_interval",
        spark: "spark.sql.streaming.pollingDelay",
        about: "the pause after a wake-up that brought nothing",
    },
    Known {
        field: "min_batches_to_retain",
        spark: "spark.sql.streaming.minBatchesToRetain",
        about: "committed micro-batches that can be restored from the checkpoint at least",
    },
    Known {
        field: "snapshot_min_records",
        spark: "",
        about: "records of state from which a snapshot is worth its file",
    },
    Known {
        field: "recent_progress",
        spark: "spark.sql.streaming.numRecentProgressUpdates",
        about: "progresses of a query that are kept in memory",
    },
    Known {
        field: "stop_active_run_on_restart",
        spark: "spark.sql.streaming.stopActiveRunOnRestart",
        about: "stop the active run of a query that is started again",
    },
    Known {
        field: "retry_attempts",
        spark: "",
        about: "retries of an operation of an object store that failed for a moment",
    },
    Known {
        field: "retry_first_delay",
        spark: "",
        about: "the longest pause before the first of them",
    },
    Known {
        field: "warehouse",
        spark: "spark.sql.warehouse.dir",
        about: "the folder of the directories of new tables",
    },
];

const SPARK_PREFIX: &str = "spark.sql.streaming.";

impl Settings {
    /// The settings of a session's state.
    pub(crate) fn of(state: &SessionState) -> Self {
        let extensions = &state.config_options().extensions;
        extensions.get::<Self>().cloned().unwrap_or_default()
    }

    /// What the engine needs of them.
    pub(crate) fn for_query(&self) -> QuerySettings {
        QuerySettings {
            no_data_batches: self.no_data_batches,
            watermark_policy: self.multiple_watermark_policy,
            polling: self.polling_interval,
            min_batches_to_retain: self.min_batches_to_retain,
            snapshots: SnapshotPolicy::of_at_least(self.snapshot_min_records),
            recent_progress: self.recent_progress,
            stop_active_run_on_restart: self.stop_active_run_on_restart,
        }
    }

    /// Tells sources, sinks and checkpoints that are opened with `state` how to treat their stores.
    pub(crate) fn tell_stores(&self, state: &mut SessionState) {
        let policy = RetryPolicy {
            attempts: self.retry_attempts,
            first_delay: self.retry_first_delay,
            ..RetryPolicy::default()
        };
        state.config_mut().set_extension(Arc::new(policy));
    }

    fn change(&mut self, field: &str, value: &str) -> Result<()> {
        match field {
            "checkpoint_location" => {
                self.checkpoint_location = (!value.is_empty()).then(|| value.to_string());
            }
            "warehouse" => self.warehouse = (!value.is_empty()).then(|| value.to_string()),
            "no_data_batches" => self.no_data_batches = parse(field, value)?,
            "multiple_watermark_policy" => self.multiple_watermark_policy = policy(value)?,
            "polling_interval" => self.polling_interval = length(field, value)?,
            "retry_attempts" => self.retry_attempts = parse(field, value)?,
            "retry_first_delay" => self.retry_first_delay = length(field, value)?,
            "min_batches_to_retain" => self.min_batches_to_retain = positive(field, value)?,
            "snapshot_min_records" => self.snapshot_min_records = positive(field, value)?,
            "recent_progress" => self.recent_progress = parse(field, value)?,
            "stop_active_run_on_restart" => {
                self.stop_active_run_on_restart = parse(field, value)?;
            }
            _ => return Err(unknown(&format!("highwater.{field}"))),
        }
        Ok(())
    }

    fn texts(&self) -> [Option<String>; KNOWN.len()] {
        [
            self.checkpoint_location.clone(),
            Some(self.no_data_batches.to_string()),
            Some(self.multiple_watermark_policy.to_string()),
            Some(format!("{} us", self.polling_interval.as_micros())),
            Some(self.min_batches_to_retain.to_string()),
            Some(self.snapshot_min_records.to_string()),
            Some(self.recent_progress.to_string()),
            Some(self.stop_active_run_on_restart.to_string()),
            Some(self.retry_attempts.to_string()),
            Some(format!("{} us", self.retry_first_delay.as_micros())),
            self.warehouse.clone(),
        ]
    }
}

impl ConfigExtension for Settings {
    const PREFIX: &'static str = "highwater";
}

impl ExtensionOptions for Settings {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, value: &str) -> DataFusionResult<()> {
        Ok(self.change(key, value)?)
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        KNOWN
            .iter()
            .zip(self.texts())
            .map(|(known, value)| ConfigEntry {
                key: format!("{}.{}", Self::PREFIX, known.field),
                value,
                description: known.about,
            })
            .collect()
    }
}

/// The key DataFusion knows: Spark's `spark.sql.streaming.…` becomes `highwater.…`, others stay.
///
/// # Errors
/// `Unsupported` for a Spark setting that has no counterpart here.
pub(crate) fn canonical_key(key: &str) -> Result<String> {
    let lower = key.to_ascii_lowercase();
    let mut of_spark = KNOWN.iter().filter(|k| !k.spark.is_empty());
    if let Some(known) = of_spark.find(|k| k.spark.eq_ignore_ascii_case(&lower)) {
        return Ok(format!("{}.{}", Settings::PREFIX, known.field));
    }
    if lower.starts_with(SPARK_PREFIX) {
        return Err(unknown(key));
    }
    if lower.starts_with("spark.") {
        return Err(Error::unsupported(format!("the setting `{key}`"))
            .with_option(key)
            .with_hint("of Spark's settings only some of `spark.sql.streaming.…` are known"));
    }
    Ok(lower)
}

fn unknown(key: &str) -> Error {
    let lower = key.to_ascii_lowercase();
    let meant = KNOWN
        .iter()
        .flat_map(|k| {
            let ours = format!("{}.{}", Settings::PREFIX, k.field);
            let sparks = (!k.spark.is_empty()).then(|| k.spark.to_string());
            [Some(ours), sparks].into_iter().flatten()
        })
        .map(|name| {
            (
                strsim::damerau_levenshtein(&name.to_ascii_lowercase(), &lower),
                name,
            )
        })
        .min()
        .filter(|(distance, _)| *distance <= 6);
    let error = Error::invalid(format!("unknown setting `{key}`")).with_option(key);
    match meant {
        Some((_, name)) => error.with_hint(format!("did you mean `{name}`?")),
        None => error,
    }
}

fn bad(field: &str, value: &str, why: &str) -> Error {
    Error::invalid(format!("setting `highwater.{field}` is `{value}`: {why}"))
        .with_condition("INVALID_CONF_VALUE.REQUIREMENT")
        .with_option(format!("highwater.{field}"))
}

fn parse<T: FromStr>(field: &str, value: &str) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    let text = value.trim().to_ascii_lowercase();
    text.parse()
        .map_err(|e: T::Err| bad(field, value, &e.to_string()))
}

fn length(field: &str, value: &str) -> Result<Duration> {
    let length = value.into_interval();
    let length = length.and_then(crate::Interval::to_duration);
    length.map_err(|e| bad(field, value, e.message()))
}

fn positive(field: &str, value: &str) -> Result<u64> {
    match parse(field, value)? {
        0 => Err(bad(field, value, "it must be greater than zero")),
        n => Ok(n),
    }
}

fn policy(value: &str) -> Result<WatermarkPolicy> {
    value.parse().map_err(|e: Error| {
        bad("multiple_watermark_policy", value, e.message())
            .with_hint("the watermark policies are min and max")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_parsed_when_they_are_set() {
        let mut settings = Settings::default();
        for (field, value) in [
            ("multiple_watermark_policy", "MAX"),
            ("polling_interval", "5 ms"),
            ("no_data_batches", "false"),
            ("min_batches_to_retain", "3"),
            ("checkpoint_location", "/tmp/ckpt"),
            ("retry_attempts", "0"),
            ("retry_first_delay", "1 second"),
        ] {
            settings.change(field, value).expect(field);
        }
        assert_eq!(settings.multiple_watermark_policy, WatermarkPolicy::Max);
        assert_eq!(settings.polling_interval, Duration::from_millis(5));
        assert_eq!(settings.checkpoint_location.as_deref(), Some("/tmp/ckpt"));
        assert!(!settings.no_data_batches);
        assert_eq!(settings.retry_attempts, 0);
        assert_eq!(settings.retry_first_delay, Duration::from_secs(1));
    }

    #[test]
    fn wrong_values_are_refused_and_leave_the_old() {
        let mut settings = Settings::default();
        for (field, value) in [
            ("multiple_watermark_policy", "average"),
            ("polling_interval", "10"),
            ("polling_interval", "-1 s"),
            ("min_batches_to_retain", "0"),
            ("snapshot_min_records", "0"),
            ("recent_progress", "many"),
            ("retry_attempts", "-1"),
            ("retry_first_delay", "100"),
        ] {
            let error = settings.change(field, value).expect_err(field);
            assert_eq!(error.condition(), Some("INVALID_CONF_VALUE.REQUIREMENT"));
            assert_eq!(error.option(), Some(format!("highwater.{field}").as_str()));
        }
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn sparks_names_are_aliases() {
        for (spark, ours) in [
            (
                "spark.sql.streaming.checkpointLocation",
                "highwater.checkpoint_location",
            ),
            (
                "spark.sql.streaming.noDataMicroBatches.enabled",
                "highwater.no_data_batches",
            ),
            (
                "SPARK.sql.streaming.multiplewatermarkpolicy",
                "highwater.multiple_watermark_policy",
            ),
            ("spark.sql.warehouse.dir", "highwater.warehouse"),
            (
                "datafusion.execution.batch_size",
                "datafusion.execution.batch_size",
            ),
        ] {
            assert_eq!(canonical_key(spark).expect(spark), ours);
        }
        let error = canonical_key("spark.sql.streaming.multipleWatermarkPolici").expect_err("typo");
        assert_eq!(
            error.hint(),
            Some("did you mean `spark.sql.streaming.multipleWatermarkPolicy`?")
        );
        assert!(canonical_key("spark.sql.shuffle.partitions").is_err());
    }
}
