//! The plot: CPU per request as a ratio to nginx, one group of bars for each scenario, as SVG.

use std::fmt::Write as _;

use crate::contestant::Program;
use crate::measure::{Results, ScenarioResult};
use crate::scenario::Target;

const BAR_HEIGHT: f64 = 14.0;
const BAR_GAP: f64 = 3.0;
const GROUP_GAP: f64 = 16.0;
const LABEL_WIDTH: f64 = 300.0;
const PLOT_WIDTH: f64 = 460.0;
const RIGHT_MARGIN: f64 = 60.0;
const TOP: f64 = 56.0;

/// Draws every scenario whose figure is CPU time.
pub(crate) fn svg(results: &Results) -> String {
    let groups: Vec<&ScenarioResult> = results
        .scenarios
        .iter()
        .filter(|scenario| scenario.scenario.load.is_cpu() && scenario.nginx().is_some())
        .collect();
    let ratios = groups.iter().flat_map(|group| bars(group));
    let largest = ratios.map(|bar| bar.ratio).fold(1.5, f64::max);
    let scale = PLOT_WIDTH / (largest * 1.02);
    let mut body = String::new();
    let mut y = TOP;
    for group in &groups {
        let _ = writeln!(
            body,
            r#"<text x="8" y="{:.1}" class="title">{}</text>"#,
            y + BAR_HEIGHT - 3.0,
            escape(group.scenario.title)
        );
        let top = y;
        for bar in bars(group) {
            let _ = writeln!(
                body,
                r#"<rect x="{LABEL_WIDTH}" y="{y:.1}" width="{:.1}" height="{BAR_HEIGHT}" fill="{}"/><text x="{:.1}" y="{:.1}" class="value">{:.2}</text>"#,
                bar.ratio * scale,
                colour(bar.program, bar.is_own_baseline),
                LABEL_WIDTH + bar.ratio * scale + 4.0,
                y + BAR_HEIGHT - 3.0,
                bar.ratio,
            );
            y += BAR_HEIGHT + BAR_GAP;
        }
        if let Some(Target::ToNginx(limit)) = group.scenario.target {
            let x = LABEL_WIDTH + limit * scale;
            let _ = writeln!(
                body,
                r#"<line x1="{x:.1}" y1="{top:.1}" x2="{x:.1}" y2="{y:.1}" class="target"/>"#
            );
        }
        y += GROUP_GAP;
    }
    let one = LABEL_WIDTH + scale;
    let width = LABEL_WIDTH + PLOT_WIDTH + RIGHT_MARGIN;
    let height = y + 8.0;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0}" height="{height:.0}" viewBox="0 0 {width:.0} {height:.0}" font-family="sans-serif" font-size="12">
<style>.title{{fill:#222}}.value{{fill:#444;font-size:11px}}.head{{font-size:14px;font-weight:bold;fill:#222}}.target{{stroke:#c0392b;stroke-width:1.5;stroke-dasharray:3 2}}.one{{stroke:#999;stroke-width:1}}</style>
<rect width="100%" height="100%" fill="#fff"/>
<text x="8" y="20" class="head">CPU time for each request, nginx = 1 (less is better; dashed: target)</text>
{legend}
<line x1="{one:.1}" y1="{line_top:.1}" x2="{one:.1}" y2="{y:.1}" class="one"/>
{body}</svg>
"##,
        legend = legend(),
        line_top = TOP - 6.0,
    )
}

struct Bar {
    program: Program,
    is_own_baseline: bool,
    ratio: f64,
}

fn bars(group: &ScenarioResult) -> Vec<Bar> {
    let Some(nginx) = group.nginx() else {
        return Vec::new();
    };
    group
        .contestants
        .iter()
        .filter_map(|contestant| {
            Some(Bar {
                program: contestant.program,
                is_own_baseline: contestant.is_own_baseline,
                ratio: group.ratio(contestant, nginx)?,
            })
        })
        .collect()
}

fn legend() -> String {
    let entries = [
        (Program::Nginx, false, "nginx"),
        (Program::Haproxy, false, "HAProxy"),
        (Program::Bare, false, "bare Pingora"),
        (Program::Sallyport, true, "Sallyport, one plain route"),
        (Program::Sallyport, false, "Sallyport"),
    ];
    let mut text = String::new();
    let mut x = 8.0;
    for (program, is_own_baseline, name) in entries {
        let _ = write!(
            text,
            r#"<rect x="{x:.0}" y="30" width="12" height="12" fill="{}"/><text x="{:.0}" y="40">{name}</text>"#,
            colour(program, is_own_baseline),
            x + 16.0,
        );
        x += 150.0;
    }
    text
}

fn colour(program: Program, is_own_baseline: bool) -> &'static str {
    match (program, is_own_baseline) {
        (Program::Nginx, _) => "#7f8c8d",
        (Program::Haproxy, _) => "#b0bec5",
        (Program::Bare, _) => "#f0b27a",
        (Program::BuiltIn | Program::Direct, _) => "#d5d8dc",
        (Program::Sallyport, true) => "#85c1e9",
        (Program::Sallyport, false) => "#2471a3",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{ContestantResult, Round};
    use crate::scenario;

    #[test]
    fn a_plot_has_a_bar_for_each_contestant() {
        let contestant = |program, figure| ContestantResult {
            program,
            is_own_baseline: false,
            rounds: vec![Round {
                figure,
                ..Round::default()
            }],
            alone: Vec::new(),
        };
        let Some(small) = scenario::ALL.first() else {
            return;
        };
        let results = Results {
            scenarios: vec![ScenarioResult {
                scenario: small,
                contestants: vec![
                    contestant(Program::Nginx, 10.0),
                    contestant(Program::Sallyport, 12.0),
                ],
                at_once: Vec::new(),
            }],
        };
        let drawn = svg(&results);
        assert!(drawn.contains(">1.00</text>") && drawn.contains(">1.20</text>"));
        assert!(drawn.contains("class=\"target\""));
    }
}
