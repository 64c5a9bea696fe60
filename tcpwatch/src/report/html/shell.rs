//! The page around the data: markup, style, script, and the policy that allows these two only.

use std::io::{self, Write};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
/// One script, in the order in which its parts need each other.
const SCRIPT: &str = concat!(
    include_str!("page/dom.js"),
    include_str!("page/words.js"),
    include_str!("page/data.js"),
    include_str!("page/time.js"),
    include_str!("page/view.js"),
    include_str!("page/tip.js"),
    include_str!("page/plot.js"),
    include_str!("page/stack.js"),
    include_str!("page/rate.js"),
    include_str!("page/lanes.js"),
    include_str!("page/culprits.js"),
    include_str!("page/findings.js"),
    include_str!("page/spread.js"),
    include_str!("page/recording.js"),
    include_str!("page/main.js"),
);

/// What the page is made of.
pub(super) struct Parts<'a> {
    pub(super) heading: &'a str,
    pub(super) story: &'a str,
    /// The report as text, for who runs no scripts.
    pub(super) plain: &'a str,
    /// JSON.
    pub(super) data: &'a str,
}

impl Parts<'_> {
    /// About how many bytes they take in the page: not fewer.
    pub(super) fn size(&self) -> usize {
        let texts =
            [self.heading, self.heading, self.story, self.plain].map(|text| escape(text).len());
        let parts = [PAGE.len(), STYLE.len(), SCRIPT.len(), harmless(self.data).len(), 1024];
        texts.iter().chain(&parts).sum()
    }
}

/// Writes the page with these rows, JSON each.
pub(super) fn write(out: &mut dyn Write, parts: &Parts<'_>, rows: &[String]) -> io::Result<()> {
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("{{") {
        out.write_all(before.as_bytes())?;
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        match name {
            "policy" => out.write_all(policy().as_bytes())?,
            "style" => out.write_all(STYLE.as_bytes())?,
            "script" => out.write_all(SCRIPT.as_bytes())?,
            "heading" => out.write_all(escape(parts.heading).as_bytes())?,
            "story" => out.write_all(escape(parts.story).as_bytes())?,
            "plain" => out.write_all(escape(parts.plain).as_bytes())?,
            "data" => out.write_all(harmless(parts.data).as_bytes())?,
            "findings" => {
                for (number, row) in rows.iter().enumerate() {
                    let before: &[u8] = if number == 0 { b"\n" } else { b",\n" };
                    out.write_all(before)?;
                    out.write_all(row.as_bytes())?;
                }
            }
            _ => {}
        }
        rest = after;
    }
    out.write_all(rest.as_bytes())
}

/// Nothing may be loaded or sent, and only this style and this script count. Types that could make
/// markup of text are refused where the browser can.
fn policy() -> String {
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
    format!(
        "default-src 'none'; script-src {}; style-src {}; img-src data:; base-uri 'none'; \
         form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
}

/// Text as text in markup.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// JSON that ends no script: in it `<` is in strings only.
pub(super) fn harmless(json: &str) -> String {
    json.replace('<', "\\u003c")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_text() {
        let comm = "</script><img src=x onerror='alert(1)'>";
        assert!(!escape(comm).contains(['<', '>', '\'', '"']));
        let json = harmless(&serde_json::to_string(comm).unwrap());
        assert!(!json.contains('<'));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), comm);
    }

    #[test]
    fn every_place_in_the_page_has_something_to_put_there() {
        let parts = Parts { heading: "HEADING", story: "STORY", plain: "PLAIN", data: "{\"a\":1}" };
        let mut page = Vec::new();
        write(&mut page, &parts, &["[1]".to_owned(), "[2]".to_owned()]).unwrap();
        let page = String::from_utf8(page).unwrap();
        let markup = page.replace(SCRIPT, "").replace(STYLE, "");
        assert!(!markup.contains("{{"), "a place is left open");
        for text in ["HEADING", "STORY", "PLAIN", "{\"a\":1}", "\n[1],\n[2]", STYLE, SCRIPT] {
            assert!(page.contains(text), "{text} is missing");
        }
        assert!(page.len() <= parts.size(), "{} > {}", page.len(), parts.size());
    }
}
