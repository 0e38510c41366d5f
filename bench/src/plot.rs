//! The figures as a picture: a panel for each workload, a bar for each contender.

use std::fmt::Write as _;

use crate::contenders::{CHANCERY, CHANCERY_LIFO, ROW_BY_ROW, SQLX_KEPT};
use crate::report::Report;
use crate::workload::Workload;

/// What is shown: the others stand in the table.
const PANELS: [(Workload, usize, &str); 8] = [
    (Workload::GetById, 8, "get a user by id, 8 clients"),
    (Workload::GetById, 32, "get a user by id, 32 clients"),
    (Workload::InsertMessage, 8, "insert a message, 8 clients"),
    (Workload::Turn, 8, "a conversation and two messages, 8 clients"),
    (Workload::DeepPage, 8, "a page at depth 100,000, 8 clients"),
    (Workload::ReadChunks, 8, "read 1,000 chunks, 8 clients"),
    (Workload::CreateChunks, 1, "store 1,000 chunks, 1 client"),
    (Workload::LoadChunks, 1, "store 10,000 chunks, 1 client"),
];

const PANEL_WIDTH: f64 = 430.0;
const LABEL: f64 = 105.0;
const BAR: f64 = 15.0;
const STEP: f64 = 19.0;
const TITLE: f64 = 34.0;
const GAP: f64 = 18.0;

pub fn svg(report: &Report) -> String {
    let mut panels = String::new();
    let (mut column, mut top, mut row_height, mut bottom) = (0, GAP, 0.0_f64, GAP);
    for (workload, clients, title) in PANELS {
        let mut bars: Vec<_> = report
            .figures
            .iter()
            .filter(|f| f.workload == workload && f.clients == clients && f.rate.is_finite())
            .collect();
        if bars.is_empty() {
            continue;
        }
        bars.sort_by(|a, b| b.rate.total_cmp(&a.rate));
        let most = bars[0].rate;
        let left = GAP + f64::from(column) * (PANEL_WIDTH + GAP);
        let _ = writeln!(panels, r#"<g transform="translate({left:.0} {top:.0})">"#);
        let _ = writeln!(panels, r#"<text y="16" class="title">{title}</text>"#);
        let mut y = TITLE - 8.0;
        for figure in &bars {
            let width = (figure.rate / most * (PANEL_WIDTH - LABEL - 125.0)).max(1.0);
            let class = match figure.contender {
                CHANCERY | CHANCERY_LIFO => "own",
                SQLX_KEPT | ROW_BY_ROW => "reference",
                _ => "other",
            };
            let rate = if figure.rate < 100.0 {
                format!("{:.1}/s", figure.rate)
            } else {
                format!("{}/s", thousands(figure.rate))
            };
            let tail = if figure.p99.is_finite() {
                format!(" · p99 {:.1} ms", figure.p99 / 1_000.0)
            } else {
                String::new()
            };
            let _ = writeln!(
                panels,
                r#"<text x="{:.0}" y="{:.0}" class="name">{}</text><rect x="{LABEL:.0}" y="{y:.0}" width="{width:.1}" height="{BAR:.0}" class="{class}"/><text x="{:.1}" y="{:.0}" class="rate">{rate}{tail}</text>"#,
                LABEL - 6.0,
                y + 12.0,
                figure.contender,
                LABEL + width + 5.0,
                y + 12.0,
            );
            y += STEP;
        }
        panels.push_str("</g>\n");
        row_height = row_height.max(y);
        bottom = top + row_height;
        column += 1;
        if column == 2 {
            (column, top, row_height) = (0, bottom + GAP, 0.0);
        }
    }
    let width = 2.0 * PANEL_WIDTH + 3.0 * GAP;
    let height = bottom + GAP;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0} {height:.0}" width="{width:.0}" height="{height:.0}" role="img" aria-label="Operations a second by contender and workload; the figures stand in bench/RESULTS.md">
<style>
text {{ font-family: system-ui, sans-serif; font-size: 12px; fill: #24292f; }}
.title {{ font-weight: 600; font-size: 13px; }}
.name {{ text-anchor: end; }}
.rate {{ fill: #57606a; font-size: 11px; }}
.own {{ fill: #0969da; }} .reference {{ fill: #bf8700; }} .other {{ fill: #8c959f; }}
</style>
<rect width="100%" height="100%" fill="#ffffff"/>
{panels}</svg>
"##
    )
}

/// 12345 as 12,345.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
