//! Charts over time: what pointers and keys do to them.

use crate::{Body, Page, crowd};

pub(crate) fn tests() -> Vec<(&'static str, Body)> {
    vec![
        ("a_pointer_learns_what_was_when", a_pointer_learns_what_was_when),
        ("a_lane_says_who_with_whom_since_when_and_why", a_lane_says_who),
        ("a_connection_that_is_gone_is_drawn_apart", a_connection_that_is_gone),
        ("dragging_looks_closer", dragging_looks_closer),
        ("keys_move_and_zoom", keys_move_and_zoom),
        ("keys_go_through_the_lanes", keys_go_through_the_lanes),
        ("a_name_marks_its_layer", a_name_marks_its_layer),
    ]
}

const TIP: &str = "(() => { const tip = document.getElementById('tip'); return tip.hidden ? '' : tip.textContent; })()";
const SHOWN: &str = "document.getElementById('shown').textContent";
const LAYERS: &str =
    "[...document.querySelectorAll('#stack .layer')].map((path) => path.getAttribute('d')).join()";

/// Moves the pointer to a part of a chart; returns where that is in the window.
fn point(page: &mut Page, frame: &str, along: f64, down: f64) -> (f64, f64) {
    let [x, y, width, height] = page.browser.place(frame).unwrap();
    let at = (x + width * along, y + height * down);
    page.browser.pointer("mouseMoved", at.0, at.1).unwrap();
    page.browser.frames().unwrap();
    at
}

fn a_pointer_learns_what_was_when(page: &mut Page) {
    page.of_trace("shop");
    point(page, "#stack .frame", 0.75, 0.5);
    let tip = page.text(TIP);
    for words in ["00:41:29", "not-closed api[26682] to 127.0.0.1:6380", "at most"] {
        assert!(tip.contains(words), "{words}: {tip}");
    }
    // The same moment in every chart.
    let cursors = page.run("[...new Set([...document.querySelectorAll('.cursor')].map((line) => line.getAttribute('x1')))].length");
    assert_eq!(cursors, 1);
    point(page, "#rate .frame", 0.3, 0.5);
    let tip = page.text(TIP);
    assert!(tip.contains("opened") && tip.contains("ESTABLISHED, at most"), "{tip}");
    page.of_trace("lost");
    let along = page.number(
        "(() => { const svg = document.querySelector('#stack svg'), gap = svg.querySelector('.gap');
           return (Number(gap.getAttribute('x')) + 1) / svg.viewBox.baseVal.width; })()",
    );
    point(page, "#stack .frame", along, 0.5);
    assert!(page.text(TIP).contains("1,183 transitions lost"));
}

fn a_lane_says_who(page: &mut Page) {
    page.of_trace("shop");
    // The first lane, below the title of its culprit.
    let [x, y, width, _] = page.browser.place("#lanes .frame").unwrap();
    page.browser.pointer("mouseMoved", x + width * 0.5, y + 38.0).unwrap();
    let tip = page.text(TIP);
    for words in [
        "api[26682] fd 8",
        "127.0.0.1:37938 → 127.0.0.1:6380",
        "not-closed",
        "since 00:41:21.268",
        "has not called close",
        "closed after 5.1s by api[26682]",
    ] {
        assert!(tip.contains(words), "{words}: {tip}");
    }
}

fn a_connection_that_is_gone(page: &mut Page) {
    page.of_bytes(&crowd::hostile().page);
    let parts = page.run(
        "(() => {
           const lane = [...document.querySelectorAll('g.lane')].find((lane) => lane.querySelector('.dead'));
           return [...lane.querySelectorAll('rect')].map((part) => part.getAttribute('class'));
         })()",
    );
    assert_eq!(parts, serde_json::json!(["established", "waiting", "finding", "dead"]));
    let verdicts =
        page.run("[...document.querySelectorAll('.card .verdict')].map((one) => one.textContent)");
    assert_eq!(verdicts, serde_json::json!(["not-reading", "dead-fd"]));
    page.run("document.querySelector('#culprit-1 .link').click()");
    page.run("document.querySelector('.finding .open').click()");
    let detail = page.text("document.querySelector('tr.detail:not([hidden])').textContent");
    assert!(detail.contains("Connection gone") && detail.contains("00:01:20.000"), "{detail}");
}

fn dragging_looks_closer(page: &mut Page) {
    page.of_trace("shop");
    let (all, layers) = (page.text(SHOWN), page.text(LAYERS));
    let (x, y) = point(page, "#stack .frame", 0.25, 0.5);
    page.browser.pointer("mousePressed", x, y).unwrap();
    page.browser.pointer("mouseMoved", x + 100.0, y).unwrap();
    page.browser.pointer("mouseReleased", x + 200.0, y).unwrap();
    page.browser.frames().unwrap();
    let part = page.text(SHOWN);
    assert!(part != all && part.contains("00:41:2"), "{part}");
    assert_ne!(page.text(LAYERS), layers);
    page.browser.click(".bar .buttons button:last-child").unwrap();
    assert_eq!((page.text(SHOWN), page.text(LAYERS)), (all, layers));
}

fn keys_move_and_zoom(page: &mut Page) {
    page.of_trace("shop");
    let all = page.text(SHOWN);
    page.run("document.querySelector('#rate .frame').focus()");
    page.browser.key("+").unwrap();
    let half = page.text(SHOWN);
    assert!(half.ends_with("7.2s"), "{half}");
    page.browser.key("ArrowRight").unwrap();
    let later = page.text(SHOWN);
    assert!(later.ends_with("7.2s") && later > half, "{later}");
    page.browser.key("ArrowLeft").unwrap();
    assert_eq!(page.text(SHOWN), half);
    page.browser.key("-").unwrap();
    assert_eq!(page.text(SHOWN), all);
    page.browser.key("+").unwrap();
    page.browser.key("0").unwrap();
    assert_eq!(page.text(SHOWN), all);
}

fn keys_go_through_the_lanes(page: &mut Page) {
    page.of_trace("shop");
    page.run("document.querySelector('#lanes .frame').focus()");
    page.browser.key("ArrowDown").unwrap();
    let first = page.text("document.getElementById('said').textContent");
    assert!(first.contains("fd 8") && page.text(TIP).contains("fd 8"), "{first}");
    page.browser.key("ArrowDown").unwrap();
    let second = page.text("document.getElementById('said').textContent");
    assert!(second.contains("fd 11"), "{second}");
    page.browser.key("Enter").unwrap();
    let focused = page.text("document.activeElement.textContent");
    assert_eq!(focused, "api[26682] fd 11");
    assert_eq!(page.text("document.activeElement.getAttribute('aria-expanded')"), "true");
    let detail = page.text("document.querySelector('tr.detail:not([hidden])').textContent");
    assert!(detail.contains("What to do") && detail.contains("closed after 4s"), "{detail}");
}

fn a_name_marks_its_layer(page: &mut Page) {
    page.of_trace("shop");
    let [x, y, width, height] = page.browser.place("#stack .key li:first-child").unwrap();
    page.browser.pointer("mouseMoved", x + width / 2.0, y + height / 2.0).unwrap();
    page.browser.frames().unwrap();
    assert_eq!(page.text("document.body.dataset.mark"), "c2");
}
