//! Prints what the store can do here: `cargo run --release -p towpath-store --example measure -- FOLDER
//! [turns | webhooks]`.

use std::time::Instant;

use towpath_core::ids::Timestamp;
use towpath_store::measure::{self, Measured};
use towpath_store::{Options, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).ok_or("name a new folder on the disk to be measured")?;
    let store = Store::open(Options::new(&folder, Timestamp(0)))?;
    let only = std::env::args().nth(2);
    let wanted = |what: &str| only.as_deref().is_none_or(|only| only == what);
    if wanted("turns") {
        show("turns, one at a time", &measure::turns(&store, 2_000, 1)?);
        show("turns, 64 waiting", &measure::turns(&store, 60_000, 64)?);
    }
    for (rate, bytes) in [(2_000, measure::HOOK_BYTES), (10_000, 0), (10_000, measure::HOOK_BYTES)] {
        if wanted("webhooks") {
            let measured = measure::hooks(&store, (5 * rate as usize, rate), bytes)?;
            show(&format!("webhooks, {bytes} bytes kept, {rate}/s"), &measured);
        }
    }
    store.close();
    let begun = Instant::now();
    Store::open(Options::new(&folder, Timestamp(0)))?;
    println!("open and close: {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

fn show(what: &str, measured: &Measured) {
    let [p50, p99, max] = [50.0, 99.0, 100.0].map(|percent| measured.percentile(percent).as_secs_f64() * 1e3);
    println!("{what}: {:.0}/s, p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms", measured.rate());
}
