//! Restore: how long a start takes that finds a large state in its checkpoint.
//!
//! The state is built by triggers of 100,000 rows, and then changed; the query is started again at nine moments while as
//! many records change as there are keys, so that one of them is close to the worst between two snapshots. Wall time
//! of `start()`, which comes back when the first trigger could run. Bars: 1 s for 1 M keys, 5 s for 10 M keys, at the
//! worst of the moments.

use highwater::Result;

use crate::durable::{LARGE, Rig, scaled, triggers_of};
use crate::support::{median, quantile, report};

const MOMENTS: i64 = 8;

pub(crate) async fn restore(scale: f64) -> Result<()> {
    for (keys, bar) in [(1_000_000, 1.0), (10_000_000, 5.0)] {
        let mut seconds = at_moments(scaled(keys, scale)).await?;
        let what = format!("restore of {keys} keys");
        println!(
            "{:<72} {:>9.3} s",
            format!("{what}, median"),
            median(&mut seconds)
        );
        let worst = quantile(&mut seconds, 1.0);
        report(&format!("{what}, the worst moment"), worst, "s", true, bar);
    }
    Ok(())
}

/// Seconds of each start.
async fn at_moments(keys: i64) -> Result<Vec<f64>> {
    let folder = tempfile::tempdir()?;
    let mut rig = Rig::filled(keys, Some(&folder)).await?;
    let mut seconds = vec![rig.restart(&folder).await?];
    let between = (keys / MOMENTS).max(1);
    for moment in 0..MOMENTS {
        let rows = LARGE.min(between);
        for batch in triggers_of((between + rows - 1) / rows, rows, keys) {
            rig.run(&batch).await?;
        }
        // A first trigger shows that the restored query works.
        seconds.push(rig.restart(&folder).await?);
        rig.run(&triggers_of(1, 10 + moment, keys)[0]).await?;
    }
    rig.query.stop().await?;
    Ok(seconds)
}
