//! How it opens and looks: alone, in both colour schemes, small, on paper, with hostile names.

use crate::{Body, Page, browser::Browser, crowd};
use tcpwatch::report::words;

pub(crate) fn tests() -> Vec<(&'static str, Body)> {
    vec![
        ("every_trace_opens_alone", every_trace_opens_alone),
        ("nothing_else_may_run_or_load", nothing_else_may_run_or_load),
        ("hostile_names_are_text", hostile_names_are_text),
        ("both_colour_schemes", both_colour_schemes),
        ("times_where_the_reader_is", times_where_the_reader_is),
        ("fits_a_small_screen", fits_a_small_screen),
        ("paper_has_everything", paper_has_everything),
        ("numbers_are_those_of_the_text", numbers_are_those_of_the_text),
        ("everything_has_a_name", everything_has_a_name),
        ("a_hundred_thousand_findings", a_hundred_thousand_findings),
    ]
}

fn every_trace_opens_alone(page: &mut Page) {
    for trace in ["shop", "damaged", "lost", "idle"] {
        page.of_trace(trace);
        page.is_alone();
        let lead = page.text("document.querySelector('.lead').textContent");
        assert!(lead.starts_with("In "), "{trace}: {lead}");
        // What something was lost of is hatched in every chart.
        let plots = page.number("document.querySelectorAll('figure.plot').length");
        let marked = page.number("[...document.querySelectorAll('figure.plot')].filter((plot) => plot.querySelector('.gap')).length");
        let lossy = trace == "damaged" || trace == "lost";
        assert!(
            (marked - if lossy { plots } else { 0.0 }).abs() < 0.5,
            "{trace}: {marked} of {plots}"
        );
        let said = page.text("document.querySelector('#recording').textContent");
        assert_eq!(said.contains("counts are lower bounds"), lossy, "{trace}: {said}");
    }
}

fn nothing_else_may_run_or_load(page: &mut Page) {
    page.of_trace("shop");
    let refused = page.run(
        "new Promise((done) => {
           const refused = [];
           addEventListener('securitypolicyviolation', (event) => refused.push(event.effectiveDirective));
           const script = document.createElement('script');
           try { script.text = 'window.ran = 1'; } catch { refused.push('trusted-types'); }
           const style = document.createElement('style');
           style.textContent = 'body { display: none }';
           const image = document.createElement('img');
           image.src = 'http://192.0.2.1/x.png';
           document.body.append(script, style, image);
           fetch('http://192.0.2.1/').catch(() => {}).then(() => setTimeout(() => done(refused), 0));
         })",
    );
    let refused: Vec<&str> =
        refused.as_array().unwrap().iter().filter_map(|v| v.as_str()).collect();
    for directive in ["trusted-types", "style-src-elem", "img-src", "connect-src"] {
        assert!(refused.contains(&directive), "{directive} is not among {refused:?}");
    }
    assert!(page.run("window.ran").is_null());
    assert_eq!(page.text("getComputedStyle(document.body).display"), "block");
    let markup = page.browser.run("document.body.innerHTML = '<p>text</p>'");
    assert!(markup.unwrap_err().to_string().contains("TrustedHTML"));
}

fn hostile_names_are_text(page: &mut Page) {
    let made = crowd::hostile();
    page.of_bytes(&made.page);
    page.is_alone();
    // Everything that can be opened is.
    page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })");
    page.run("document.querySelectorAll('.findings .open').forEach((one) => one.click())");
    page.browser.frames().unwrap();
    page.is_alone();
    let markup = "document.querySelectorAll('main img, main svg[onload], main script').length";
    assert!(page.number(markup) < 0.5);
    assert!(page.run("window.hacked").is_null());
    let text = page.text("document.querySelector('main').textContent");
    for hostile in [crowd::HOSTILE_COMM, crowd::HOSTILE_HOST, crowd::HOSTILE_NETNS] {
        assert!(text.contains(hostile), "{hostile} is not shown");
    }
    assert_eq!(
        page.text("document.title"),
        format!("Leaked connections on {}", crowd::HOSTILE_HOST)
    );
}

fn paper(browser: &mut Browser) -> String {
    let value = browser.run("getComputedStyle(document.body).backgroundColor").unwrap();
    value.as_str().unwrap().to_owned()
}

fn both_colour_schemes(page: &mut Page) {
    page.browser.prefer("light").unwrap();
    page.of_trace("shop");
    let light = paper(&mut page.browser);
    page.browser.prefer("dark").unwrap();
    let dark = paper(&mut page.browser);
    assert_ne!(light, dark);
    let drawn = page.browser.picture([0.0, 0.0, 1280.0, 900.0], 1.0).unwrap();
    assert!(drawn.starts_with(b"\x89PNG"));
    // A choice counts more than what the system prefers.
    let choice = "#controls [aria-label=Colours] button";
    page.browser.click(&format!("{choice}:nth-child(2)")).unwrap();
    assert_eq!(paper(&mut page.browser), light);
    page.browser.prefer("light").unwrap();
    page.browser.click(&format!("{choice}:nth-child(3)")).unwrap();
    assert_eq!(paper(&mut page.browser), dark);
    page.browser.click(&format!("{choice}:nth-child(1)")).unwrap();
    assert_eq!(paper(&mut page.browser), light);
}

fn times_where_the_reader_is(page: &mut Page) {
    let zone = serde_json::json!({ "timezoneId": "Asia/Tokyo" });
    page.browser.call("Emulation.setTimezoneOverride", &zone).unwrap();
    page.of_trace("shop");
    let when = "document.querySelector('.story .when').textContent";
    let shown = "document.querySelector('#shown').textContent";
    assert!(page.text(when).starts_with("2026-11-23 00:41:18 to 00:41:32 UTC. "));
    page.browser.click("#controls [aria-label=Times] button:nth-child(2)").unwrap();
    assert!(page.text(when).starts_with("2026-11-23 09:41:18 to 09:41:32 Asia/Tokyo. "));
    assert!(page.text(shown).starts_with("09:41:18 to 09:41:32 Asia/Tokyo"));
    let since = page.text("document.querySelector('.finding [data-name=Since]').textContent");
    assert!(since.starts_with("09:41:"), "{since}");
    let axis = page.text("document.querySelector('.axis text').textContent");
    assert!(axis.starts_with("09:41:"), "{axis}");
}

fn fits_a_small_screen(page: &mut Page) {
    for trace in ["shop", "lost"] {
        page.of_trace(trace);
        page.browser.size(400, 800, 2.0).unwrap();
        page.browser.frames().unwrap();
        let width = page.number("document.documentElement.scrollWidth");
        assert!(width <= 400.0, "{trace}: {width}");
    }
}

fn paper_has_everything(page: &mut Page) {
    page.browser.prefer("dark").unwrap();
    page.of_trace("shop");
    page.run(
        "addEventListener('beforeprint', () => {
           const hidden = (selector) => document.querySelectorAll(selector).length;
           window.unopened = hidden('details:not([open])') + hidden('tr.detail[hidden]');
         })",
    );
    let pdf = page.browser.print().unwrap();
    assert!(pdf.starts_with(b"%PDF-"));
    assert!(page.number("window.unopened") < 0.5);
    // And on the screen it is as before.
    assert!(page.number("document.querySelectorAll('details[open]').length") < 0.5);
    let media = serde_json::json!({ "media": "print" });
    page.browser.call("Emulation.setEmulatedMedia", &media).unwrap();
    for control in ["#controls", ".filters", ".bar .buttons"] {
        let display = format!("getComputedStyle(document.querySelector('{control}')).display");
        assert_eq!(page.text(&display), "none", "{control}");
    }
    assert_eq!(page.text("getComputedStyle(document.documentElement).colorScheme"), "light");
}

fn numbers_are_those_of_the_text(page: &mut Page) {
    page.of_trace("idle");
    let script = include_str!("../../src/report/html/page/words.js");
    let mut ns = vec![0, 1, 999, 1_000, 999_999, 1_000_000, 9_999_999, 10_000_000];
    for power in 8..16 {
        let unit = 10_u64.pow(power);
        ns.extend([unit - 1, unit, unit + unit / 3, 2 * unit, 7 * unit + unit / 10]);
    }
    ns.extend([60, 3600, 86_400].map(|seconds| seconds * 1_000_000_000));
    let rates = [0.0, 0.001, 0.25, 0.99, 0.996, 1.0, 9.64, 99.9, 99.97, 12_345.6];
    let said = page.run(&format!(
        "(() => {{ {script}; return [
           {ns:?}.map(duration), {ns:?}.map(grouped), {rates:?}.map(rate), [0, 1, 2].map((count) => plural(count, 'gap')),
         ]; }})()"
    ));
    let expected = serde_json::json!([
        ns.iter().map(|&ns| words::duration(ns)).collect::<Vec<_>>(),
        ns.iter().map(|&ns| words::grouped(ns)).collect::<Vec<_>>(),
        rates.map(words::rate),
        ["0 gaps", "1 gap", "2 gaps"],
    ]);
    assert_eq!(said, expected);
}

fn everything_has_a_name(page: &mut Page) {
    page.of_trace("shop");
    let nameless = page.run(
        "[...document.querySelectorAll('button, input, select, [tabindex], svg[role=img]')]
           .filter((node) => !(node.getAttribute('aria-label') || node.textContent.trim() || node.labels?.length))
           .map((node) => node.outerHTML)",
    );
    assert_eq!(nameless, serde_json::json!([]));
    // Each chart says what it shows, and each but that of the findings has a table of it.
    let charts = page.number("document.querySelectorAll('figure.plot svg[role=img]').length");
    let tables = page.number("document.querySelectorAll('figure.plot details table').length");
    assert!(
        (charts - 3.0).abs() < 0.5 && (tables - 2.0).abs() < 0.5,
        "{charts} charts, {tables} tables"
    );
    // With the keyboard alone one gets to every control, and sees where one is.
    let mut seen = Vec::new();
    for _ in 0..12 {
        page.browser.key("Tab").unwrap();
        seen.push(page.text(
            "document.activeElement.textContent.slice(0, 20) || document.activeElement.tagName",
        ));
        let style = page.text("getComputedStyle(document.activeElement).outlineStyle");
        assert_eq!(style, "solid", "{seen:?}");
    }
    for control in ["Auto", "+", "All", "As a table"] {
        assert!(seen.iter().any(|name| name == control), "{control} is not among {seen:?}");
    }
}

fn a_hundred_thousand_findings(page: &mut Page) {
    let made = crowd::many(100_000);
    assert!(made.page.len() < 3_000_000, "{} bytes", made.page.len());
    assert_eq!(made.report.totals.findings, 100_000);
    page.of_bytes(&made.page);
    page.is_alone();
    // Others use the machine, too: the fastest of a few counts.
    let mut loads = Vec::new();
    for _ in 0..3 {
        page.of_bytes(&made.page);
        let end = "performance.getEntriesByType('navigation')[0].loadEventEnd";
        loads.push(page.number(end));
    }
    assert!(loads.iter().any(|&ms| ms < 3000.0), "loaded after {loads:?} ms");
    let note = page.text("document.querySelector('#findings-list').textContent");
    for words in ["of 100,000 findings are listed", "tcpwatch export FILE --to jsonl --findings"] {
        assert!(note.contains(words), "{words} is not said: {}", &note[..300]);
    }
    let took = page.number(
        "(() => {
           const field = document.getElementById('filter');
           const time = (words) => {
             const begun = performance.now();
             field.value = words;
             field.dispatchEvent(new Event('input'));
             document.body.offsetHeight;
             return performance.now() - begun;
           };
           const words = ['api', '10.2.0', 'not-closed 5432', 'nothing has this', ''];
           const rounds = Array.from({ length: 5 }, () => words.map(time));
           return Math.max(...words.map((_, word) => Math.min(...rounds.map((round) => round[word]))));
         })()",
    );
    assert!(took < 200.0, "a filter took {took} ms");
    let zoomed = page.number(
        "(() => {
           const begun = performance.now();
           document.querySelector('.bar .buttons button:nth-child(2)').click();
           return new Promise((done) => requestAnimationFrame(() => {
             document.body.offsetHeight;
             done(performance.now() - begun);
           }));
         })()",
    );
    assert!(zoomed < 500.0, "zooming took {zoomed} ms");
}
