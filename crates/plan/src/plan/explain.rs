//! What `explain` says of an operator beside what it says of itself: what it reads, and what its watermark follows.
//!
//! ```text
//! State:
//!   join of two streams, left outer join on (ad = ad), left rows leave when …, right rows leave when …
//!     join.left reads impressions
//!     join.right reads clicks
//!     watermark follows `shown` − 30 s, `clicked` − 30 s
//! ```
//! The watermark is the query's, whatever stands below an operator (Spark): all its inputs are told, with their delays.
//! Which of them counts, the slowest or the fastest, is a setting. Above a join it is behind by what the join holds back.

use super::IncrementalPlan;
use crate::incrementalize::delay_of;
use crate::operators::StatefulOperator;
use crate::operators::join::length;
use crate::operators::watermark::WatermarkInput;

impl IncrementalPlan {
    /// Lines about what is below `operator`, and below those it tells of.
    pub(super) fn below(&self, operator: &dyn StatefulOperator) -> String {
        let all = self.operators.iter().zip(&self.read_by);
        let from = all.skip_while(|(one, _)| one.name() != operator.name());
        let told = from
            .enumerate()
            .take_while(|(at, (one, _))| *at == 0 || !one.shows());
        let mut text = String::new();
        for (_, (one, sources)) in told {
            let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
            let line = format!("\n    {} reads {}", one.name(), sources.join(", "));
            text.push_str(&line);
        }
        text.push_str(&self.watermark_of(operator));
        text
    }

    /// What the watermark of an operator follows; nothing for one that heeds none.
    fn watermark_of(&self, operator: &dyn StatefulOperator) -> String {
        let heeds = operator.wants_batch_without_data() || operator.late_schema().is_some();
        if !heeds || self.watermarks.is_empty() {
            return String::new();
        }
        let inputs = self.watermarks.iter().map(|input| follows(input));
        let inputs: Vec<_> = inputs.collect();
        let behind = match delay_of(&self.plan, operator.name()) {
            0 => String::new(),
            ms => format!(", {} behind for the joins below", length(ms)),
        };
        format!("\n    watermark follows {}{behind}", inputs.join(", "))
    }
}

fn follows(input: &WatermarkInput) -> String {
    match input.delay_ms {
        0 => format!("`{}`", input.column),
        ms => format!("`{}` − {}", input.column, length(ms)),
    }
}
