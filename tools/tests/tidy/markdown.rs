//! As much of Markdown as the checks need: headings with their anchors, links, and code in ticks.

/// A text with its fenced code blanked; lines keep their numbers.
pub(crate) fn without_fences(text: &str) -> String {
    let mut fenced = false;
    let mut kept = String::with_capacity(text.len());
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        if !fenced && !fence {
            kept.push_str(line);
        }
        kept.push('\n');
        fenced ^= fence;
    }
    kept
}

/// Where links of the page lead, with their lines, as they are written.
pub(crate) fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (number, line) in numbered(&without_code(&without_fences(text))) {
        for (at, _) in line.match_indices("](") {
            let target = line[at + 2..].split([')', ' ']).next().unwrap_or_default();
            links.push((number, target.to_owned()));
        }
        if let Some((label, target)) = line.split_once("]: ")
            && label.starts_with('[')
        {
            links.push((number, target.trim().to_owned()));
        }
    }
    links
}

/// What stands in ticks, outside fences.
pub(crate) fn ticks(text: &str) -> Vec<(usize, String)> {
    let mut ticks = Vec::new();
    for (number, line) in numbered(&without_fences(text)) {
        ticks.extend(line.split('`').skip(1).step_by(2).map(|code| (number, code.to_owned())));
    }
    ticks
}

/// Headings of one level, in order.
pub(crate) fn headings(text: &str, level: usize) -> Vec<String> {
    let mark = format!("{} ", "#".repeat(level));
    let text = without_fences(text);
    text.lines()
        .filter_map(|line| line.strip_prefix(&mark))
        .map(|heading| heading.trim().to_owned())
        .collect()
}

/// Anchors of the page's headings, as GitHub makes them.
pub(crate) fn anchors(text: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    let text = without_fences(text);
    for line in text.lines().filter(|line| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        let plain: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let mut anchor = plain.clone();
        let mut again = 0;
        while anchors.contains(&anchor) {
            again += 1;
            anchor = format!("{plain}-{again}");
        }
        anchors.push(anchor);
    }
    anchors
}

/// Cells of the page's tables, row by row, heads and rules left out.
pub(crate) fn rows(text: &str) -> Vec<(usize, Vec<String>)> {
    let mut rows = Vec::new();
    let mut in_body = false;
    for (number, line) in numbered(&without_fences(text)) {
        let Some(inner) = line.strip_prefix('|').and_then(|line| line.trim_end().strip_suffix('|')) else {
            in_body = false;
            continue;
        };
        if inner.trim_start().starts_with('-') {
            in_body = true;
        } else if in_body {
            rows.push((number, inner.split('|').map(|cell| cell.trim().to_owned()).collect()));
        }
    }
    rows
}

fn without_code(text: &str) -> String {
    let lines = text.lines().map(|line| line.split('`').step_by(2).collect::<Vec<_>>().join("``"));
    lines.collect::<Vec<_>>().join("\n")
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

#[test]
fn links_ticks_and_anchors_are_found() {
    let text = "# A b: `c`!\n[x](y.md#z) `[p](q)` [r](s)\n```\n[t](u)\n# no\n```\n[v]: w.md\n## A b c\n";
    let expected = [(2, "y.md#z".to_owned()), (2, "s".to_owned()), (7, "w.md".to_owned())];
    assert_eq!(links(text), expected);
    assert_eq!(ticks(text), [(1, "c".to_owned()), (2, "[p](q)".to_owned())]);
    assert_eq!(anchors(text), ["a-b-c", "a-b-c-1"]);
    assert_eq!(headings(text, 2), ["A b c"]);
}

#[test]
fn tables_have_rows() {
    let text = "| a | b |\n|---|---|\n| c | d, e |\n\n| f |\n";
    assert_eq!(rows(text), [(3, vec!["c".to_owned(), "d, e".to_owned()])]);
}
