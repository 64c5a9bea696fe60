//! The table of findings: filtered, sorted, opened.

use serde_json::json;

use crate::{Body, Page};

pub(crate) fn tests() -> Vec<(&'static str, Body)> {
    vec![
        ("words_filter_findings", words_filter_findings),
        ("a_culprit_filters_its_findings", a_culprit_filters_its_findings),
        ("heads_sort_findings", heads_sort_findings),
        ("a_row_opens_for_the_evidence", a_row_opens),
        ("only_what_the_charts_show", only_what_the_charts_show),
    ]
}

const COUNT: &str = "document.querySelector('p.count').textContent";
const LINGERED: &str =
    "[...document.querySelectorAll('.finding [data-name=For]')].map((cell) => cell.textContent)";

fn type_into(page: &mut Page, words: &str) {
    page.browser.click("#filter").unwrap();
    page.run("document.getElementById('filter').select()");
    page.browser.call("Input.insertText", &json!({ "text": words })).unwrap();
    page.browser.frames().unwrap();
}

fn words_filter_findings(page: &mut Page) {
    page.of_trace("shop");
    assert_eq!(page.text(COUNT), "11 findings");
    type_into(page, "not-reading 6380");
    assert_eq!(page.text(COUNT), "2 of 11 findings");
    assert_eq!(page.run(LINGERED), json!(["6.2s", "4.6s"]));
    type_into(page, "no such words");
    assert_eq!(page.text(COUNT), "0 of 11 findings");
    type_into(page, " ");
    assert_eq!(page.text(COUNT), "11 findings");
}

fn a_culprit_filters_its_findings(page: &mut Page) {
    page.of_trace("shop");
    page.browser.click("#culprit-1 .link").unwrap();
    assert_eq!(page.text(COUNT), "3 of 11 findings");
    assert_eq!(
        page.text("document.getElementById('by-culprit').selectedOptions[0].textContent"),
        "not-closed api[26682] at 127.0.0.1:8080"
    );
    page.of_trace("damaged");
    page.browser.click(".filters .choice button:nth-child(3)").unwrap();
    assert_eq!(page.text(COUNT), "0 of 6 findings");
    page.browser.click(".filters .choice button:nth-child(2)").unwrap();
    assert_eq!(page.text(COUNT), "6 findings");
}

fn heads_sort_findings(page: &mut Page) {
    page.of_trace("shop");
    let longest = json!([
        "9.9s", "7.9s", "7.4s", "6.8s", "6.2s", "5.7s", "5.1s", "4.9s", "4.6s", "4s", "3.4s"
    ]);
    assert_eq!(page.run(LINGERED), longest);
    let sorts = "[...document.querySelectorAll('.findings th[aria-sort]')].map((head) => [head.textContent, head.ariaSort])";
    assert_eq!(page.run(sorts), json!([["For", "descending"]]));
    page.browser.click(".findings thead th:nth-child(5) button").unwrap();
    let mut shortest = longest.as_array().unwrap().clone();
    shortest.reverse();
    assert_eq!(page.run(LINGERED), json!(shortest));
    assert_eq!(page.run(sorts), json!([["For", "ascending"]]));
    // With the keyboard.
    page.run("document.querySelector('.findings thead th:nth-child(3) button').focus()");
    page.browser.key("Enter").unwrap();
    assert_eq!(page.run(sorts), json!([["Verdict", "ascending"]]));
    let verdicts = page
        .run("[...document.querySelectorAll('.finding .verdict')].map((cell) => cell.textContent)");
    let verdicts: Vec<_> = verdicts.as_array().unwrap().iter().filter_map(|v| v.as_str()).collect();
    assert!(verdicts.is_sorted() && verdicts.contains(&"not-reading"), "{verdicts:?}");
}

fn a_row_opens(page: &mut Page) {
    page.of_trace("shop");
    page.browser.click(".finding:nth-child(1) .open").unwrap();
    let detail = page.text("document.querySelector('tr.detail:not([hidden])').textContent");
    for words in [
        "has read everything from 127.0.0.1:34446",
        "Seen 00:41:29.512: nobody waits for it",
        "What to do",
        "never closed: its process ended after 9.9s (api[26682])",
        "cache[26679]",
    ] {
        assert!(detail.contains(words), "{words}: {detail}");
    }
    page.browser.click(".finding:nth-child(1) .open").unwrap();
    assert_eq!(page.run("document.querySelectorAll('tr.detail:not([hidden])').length"), 0);
}

fn only_what_the_charts_show(page: &mut Page) {
    page.of_trace("shop");
    page.browser.click("#in-view").unwrap();
    assert_eq!(page.text(COUNT), "11 findings");
    page.run("document.querySelector('#stack .frame').focus()");
    for key in [
        "+",
        "+",
        "+",
        "ArrowLeft",
        "ArrowLeft",
        "ArrowLeft",
        "ArrowLeft",
        "ArrowLeft",
        "ArrowLeft",
        "ArrowLeft",
        "ArrowLeft",
    ] {
        page.browser.key(key).unwrap();
    }
    let shown = page.text(COUNT);
    assert!(shown.ends_with(" of 11 findings") && !shown.starts_with("11"), "{shown}");
}
