//! The seeded generator of the data set under `data/`: shops and pumps that never were.
//!
//! The files have the shape of two well-known public data sets; every value is made up here.

use std::fmt::Write as _;

use chrono::{Datelike, NaiveDate};

use crate::rng::Rng;

/// A file to be written: its path under the data folder, and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// `retail/by-day/2024-05-01.csv`.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// How many days the shop is open.
const DAYS: u64 = 10;
/// How many lines of invoices a day has.
const LINES: usize = 60;

/// Every file of the data set.
#[must_use]
pub fn files() -> Vec<DataFile> {
    let mut files = retail_days(DAYS, LINES, 20_240_501);
    files.push(DataFile {
        path: "sensors/sensordata.csv".into(),
        text: sensors(&mut Rng::new(20_240_502)),
    });
    files.push(DataFile {
        path: "sensors/sensorvendor.csv".into(),
        text: VENDORS.map(|line| format!("{line}\n")).concat(),
    });
    files
}

/// Articles: code, description, price in pence.
const ARTICLES: [(&str, &str, i64); 12] = [
    ("10001", "OAK EGG CUP", 165),
    ("10002", "ENAMEL JUG BLUE", 745),
    ("10003", "PAPER LANTERN, SMALL", 85),
    ("10004", "WOOL BLANKET GREY", 2495),
    ("10005", "TIN SOLDIER SET", 1250),
    ("10006", "GLASS BEAD NECKLACE", 395),
    ("10007", "COTTON TEA TOWEL", 255),
    ("10008", "BRASS DOOR KNOB", 1095),
    ("10009", "SLATE COASTER, SET OF 4", 595),
    ("10010", "BEESWAX CANDLE", 125),
    ("10011", "CLAY PLANT POT", 210),
    ("10012", "LINEN NAPKIN", 180),
];

const COUNTRIES: [&str; 5] = ["Norway", "Portugal", "Ireland", "Austria", "Estonia"];

/// One CSV a day: `InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country`.
///
/// `lines` is the number of lines a day has; the same seed gives the same files.
#[must_use]
pub fn retail_days(number: u64, lines: usize, seed: u64) -> Vec<DataFile> {
    let mut rng = Rng::new(seed);
    let mut invoice = 700_000;
    days(number)
        .map(|day| DataFile {
            path: format!("retail/by-day/{day}.csv"),
            text: retail_day(&mut rng, day, lines, &mut invoice),
        })
        .collect()
}

fn retail_day(rng: &mut Rng, day: NaiveDate, lines: usize, invoice: &mut u32) -> String {
    let mut text = String::from(
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n",
    );
    let mut buyer = Buyer::new(rng);
    for line in 0..lines {
        if rng.chance(25) {
            *invoice += 1;
            buyer = Buyer::new(rng);
        }
        let (code, description, pence) = rng.pick(&ARTICLES);
        let (sign, quantity) = match rng.chance(4) {
            true => ("C", -rng.between(1, 4)),
            false => ("", rng.between(1, 25)),
        };
        let minute = 8 * 60 + line * 540 / lines;
        let Buyer { id, country } = &buyer;
        append(
            &mut text,
            &format!(
                "{sign}{invoice},{code},{},{quantity},{day} {:02}:{:02}:00,{}.{:02},{id},{country}",
                csv(description),
                minute / 60,
                minute % 60,
                pence / 100,
                pence % 100,
            ),
        );
    }
    text
}

/// Who buys: an unknown customer has no number.
struct Buyer {
    id: String,
    country: &'static str,
}

impl Buyer {
    fn new(rng: &mut Rng) -> Self {
        let customer = rng.below(14);
        let id = match customer {
            0 => String::new(),
            n => format!("{}.0", 20_000 + n),
        };
        Self {
            id,
            country: COUNTRIES[customer % COUNTRIES.len()],
        }
    }
}

/// A pump: its name, and how it usually runs.
const PUMPS: [(&str, f64); 5] = [
    ("ALDER", 84.0),
    ("BIRCH", 78.5),
    ("CEDAR", 91.0),
    ("ELM", 66.0),
    ("HAZEL", 72.5),
];

/// Who made the pumps, no header: `resid,type,purchased,installed,vendor,latitude,longitude`. One pump is not known.
const VENDORS: [&str; 4] = [
    "ALDER,GEARPUMP,2/11/19,4/1/19,TIDEWORKS,59.9139,10.7522",
    "BIRCH,GEARPUMP,2/11/19,4/3/19,TIDEWORKS,59.9140,10.7524",
    "CEDAR,SCREWPUMP,9/30/20,1/18/21,NORDSTROEM,59.9141,10.7526",
    "ELM,SCREWPUMP,9/30/20,1/20/21,NORDSTROEM,59.9142,10.7528",
];

/// Readings every half hour, no header: `resid,date,time,hz,disp,flo,sedPPM,psi,chlPPM`.
fn sensors(rng: &mut Rng) -> String {
    let mut text = String::new();
    for (pump, pressure) in PUMPS {
        for day in days(3) {
            for half_hour in 0..48 {
                append(&mut text, &reading(rng, pump, pressure, day, half_hour));
            }
        }
    }
    text
}

fn reading(rng: &mut Rng, pump: &str, pressure: f64, day: NaiveDate, half_hour: u32) -> String {
    let mut around =
        |middle: f64, width: f64| middle + width * (rng.between(-100, 101) as f64) / 100.0;
    let (hz, disp, flo) = (around(10.0, 1.0), around(1.8, 0.4), around(900.0, 90.0));
    let (sediment, chlorine) = (around(1.1, 1.0), around(1.4, 0.6));
    let usual = around(pressure, 9.0);
    let psi = match rng.below(60) {
        0 => 0.0,
        1 => rng.between(10, 49) as f64 / 100.0,
        _ => usual.round(),
    };
    format!(
        "{pump},{}/{}/{:02},{}:{:02},{hz:.2},{disp:.3},{flo:.0},{sediment:.2},{psi},{chlorine:.2}",
        day.month(),
        day.day(),
        day.year() % 100,
        half_hour / 2,
        half_hour % 2 * 30,
    )
}

/// So many days from 1 May 2024.
fn days(count: u64) -> impl Iterator<Item = NaiveDate> {
    let first = NaiveDate::from_ymd_opt(2024, 5, 1).unwrap_or_default();
    (0..count).filter_map(move |n| first.checked_add_days(chrono::Days::new(n)))
}

/// A field that holds a comma is quoted.
fn csv(field: &str) -> String {
    match field.contains(',') {
        true => format!("\"{field}\""),
        false => field.into(),
    }
}

fn append(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}
