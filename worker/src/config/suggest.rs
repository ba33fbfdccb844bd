//! "Did you mean": the name that is nearest to what was written.

/// Longest name that is compared; longer ones are no typing mistake.
const MAX_LENGTH: usize = 128;

/// The nearest of the known names, when it is near enough to be meant.
pub(crate) fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let folded = fold(wrong);
    if folded.len() > MAX_LENGTH {
        return None;
    }
    let allowed = (folded.chars().count() / 3).clamp(1, 4);
    let length = folded.chars().count();
    known
        // The distance is at least what the lengths differ by. Folding only makes a name shorter.
        .filter(|name| name.len() + allowed >= length)
        .filter(|name| letters(name).abs_diff(length) <= allowed)
        .map(|name| (distance(&folded, &fold(name)), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// A sentence with the nearest name, or with all names when they are few.
pub(crate) fn hint<'a>(
    wrong: &str,
    known: impl Iterator<Item = &'a str> + Clone,
    what: &str,
) -> Option<String> {
    const LISTED: usize = 12;
    if let Some(name) = nearest(wrong, known.clone()) {
        return Some(format!("did you mean `{name}`?"));
    }
    let names: Vec<&str> = known.clone().take(LISTED).collect();
    if names.is_empty() {
        return None;
    }
    let more = known.count() - names.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(format!("{what}: {}{more}", names.join(", ")))
}

/// The length of a name when it is folded; exact for what names are made of.
fn letters(name: &str) -> usize {
    name.chars().filter(|c| *c != '_' && *c != '-').count()
}

fn fold(name: &str) -> String {
    name.chars().filter(|c| *c != '_' && *c != '-').flat_map(char::to_lowercase).collect()
}

/// The number of insertions, removals, changes and swaps of neighbours between two texts.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |list: &Vec<usize>, k: usize| list.get(k).copied().unwrap_or(usize::MAX / 2);
            let mut best = at(&last, j) + usize::from(x != y);
            best = best.min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_name_that_was_meant() {
        let names = ["connect_timeout", "name", "type", "lb_policy"];
        let check = |wrong, expected| assert_eq!(nearest(wrong, names.into_iter()), expected);
        check("connect_timout", Some("connect_timeout"));
        check("connectTimeout", Some("connect_timeout"));
        check("nmae", Some("name"));
        check("LB-Policy", Some("lb_policy"));
        check("something_else", None);
        check("", None);
    }
}
