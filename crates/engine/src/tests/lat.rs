//! temporary
use super::support::*;
use crate::*;
use std::sync::Arc;
use std::time::Instant;
#[test]
fn latency() {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let other = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    rt.block_on(async {
        let house = House::new();
        let manager = StreamingQueryManager::new(Arc::new(SystemClock), other.handle().clone());
        let (numbers, sink) = (Numbers::new(), Written::new());
        let query = manager.start(house.request(&numbers, &sink)).await.unwrap();
        let mut times = vec![];
        for n in 0..5000u64 {
            let wait = Instant::now();
            while wait.elapsed().as_micros() < 200 { std::hint::spin_loop(); }
            let t = Instant::now();
            numbers.add([n as i64]);
            while numbers.committed() < n + 1 { std::hint::spin_loop(); }
            times.push(t.elapsed().as_nanos() as u64);
        }
        times.sort();
        eprintln!("p50 {} ns p90 {} p99 {}", times[2500], times[4500], times[4950]);
        let t = Instant::now();
        let target = 5000 + 20000;
        for n in 5000..target { numbers.add([n as i64]); while numbers.committed() < n as u64 + 1 { std::hint::spin_loop(); } }
        eprintln!("ping-pong per trigger {} ns", t.elapsed().as_nanos() / 20000);
        query.stop().await.unwrap();
        drop(query);
    });
    other.shutdown_background();
}
