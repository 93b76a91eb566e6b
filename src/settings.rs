//! The settings `highwater.*`, a DataFusion config extension, and Spark's names for them.
//!
//! They are set with [`config`](crate::StreamSessionBuilder::config) or SQL's `SET highwater.… = …`; a
//! value that is wrong is refused when it is set. A query takes them when it starts.

use std::any::Any;
use std::str::FromStr;
use std::time::Duration;

use datafusion::common::Result as DataFusionResult;
use datafusion::common::config::{ConfigEntry, ConfigExtension, ExtensionOptions};
use datafusion::execution::SessionState;
use highwater_engine::{QuerySettings, WatermarkPolicy};

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
    /// So many committed micro-batches stay in the checkpoint at least; 100 by default.
    pub min_batches_to_retain: u64,
    /// So many progresses of a query are kept in memory; 100 by default.
    pub recent_progress: usize,
    /// A query that is started while a run of it is active stops that run; true by default.
    pub stop_active_run_on_restart: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let query = QuerySettings::default();
        Self {
            checkpoint_location: None,
            no_data_batches: query.no_data_batches,
            multiple_watermark_policy: query.watermark_policy,
            polling_interval: query.polling,
            min_batches_to_retain: query.min_batches_to_retain,
            recent_progress: query.recent_progress,
            stop_active_run_on_restart: query.stop_active_run_on_restart,
        }
    }
}

/// A setting: its field, Spark's name after `spark.sql.streaming.`, and what it is.
struct Known {
    field: &'static str,
    spark: &'static str,
    about: &'static str,
}

const KNOWN: [Known; 7] = [
    Known {
        field: "checkpoint_location",
        spark: "checkpointLocation",
        about: "the folder for the checkpoints of queries that name none",
    },
    Known {
        field: "no_data_batches",
        spark: "noDataMicroBatches.enabled",
        about: "run micro-batches without data when the watermark has something to release",
    },
    Known {
        field: "multiple_watermark_policy",
        spark: "multipleWatermarkPolicy",
        about: "min or max of the inputs' watermarks",
    },
    Known {
        field: "polling_interval",
        spark: "pollingDelay",
        about: "the pause after a wake-up that brought nothing",
    },
    Known {
        field: "min_batches_to_retain",
        spark: "minBatchesToRetain",
        about: "committed micro-batches that stay in the checkpoint at least",
    },
    Known {
        field: "recent_progress",
        spark: "numRecentProgressUpdates",
        about: "progresses of a query that are kept in memory",
    },
    Known {
        field: "stop_active_run_on_restart",
        spark: "stopActiveRunOnRestart",
        about: "stop the active run of a query that is started again",
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
            recent_progress: self.recent_progress,
            stop_active_run_on_restart: self.stop_active_run_on_restart,
        }
    }

    fn change(&mut self, field: &str, value: &str) -> Result<()> {
        match field {
            "checkpoint_location" => {
                self.checkpoint_location = (!value.is_empty()).then(|| value.to_string());
            }
            "no_data_batches" => self.no_data_batches = parse(field, value)?,
            "multiple_watermark_policy" => self.multiple_watermark_policy = policy(value)?,
            "polling_interval" => {
                self.polling_interval = value
                    .into_interval()
                    .and_then(crate::Interval::to_duration)
                    .map_err(|e| bad(field, value, e.message()))?;
            }
            "min_batches_to_retain" => self.min_batches_to_retain = positive(field, value)?,
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
            Some(self.recent_progress.to_string()),
            Some(self.stop_active_run_on_restart.to_string()),
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
    if let Some(name) = lower.strip_prefix(SPARK_PREFIX) {
        let known = KNOWN.iter().find(|k| k.spark.eq_ignore_ascii_case(name));
        return known
            .map(|k| format!("{}.{}", Settings::PREFIX, k.field))
            .ok_or_else(|| unknown(key));
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
            [ours, format!("{SPARK_PREFIX}{}", k.spark)]
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
        ] {
            settings.change(field, value).expect(field);
        }
        assert_eq!(settings.multiple_watermark_policy, WatermarkPolicy::Max);
        assert_eq!(settings.polling_interval, Duration::from_millis(5));
        assert_eq!(settings.checkpoint_location.as_deref(), Some("/tmp/ckpt"));
        assert!(!settings.no_data_batches);
    }

    #[test]
    fn wrong_values_are_refused_and_leave_the_old() {
        let mut settings = Settings::default();
        for (field, value) in [
            ("multiple_watermark_policy", "average"),
            ("polling_interval", "10"),
            ("polling_interval", "-1 s"),
            ("min_batches_to_retain", "0"),
            ("recent_progress", "many"),
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
