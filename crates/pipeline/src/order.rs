//! The order of jobs, and the circles that prevent one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Every index after all that it needs, otherwise in the given order; or the circles that are in the way, each as the
/// indices along it.
pub(crate) fn topological(needs: &[Vec<usize>]) -> Result<Vec<usize>, Vec<Vec<usize>>> {
    let mut dependants = vec![Vec::new(); needs.len()];
    let mut open: Vec<usize> = needs.iter().map(Vec::len).collect();
    for (at, needed) in needs.iter().enumerate() {
        needed.iter().for_each(|need| dependants[*need].push(at));
    }
    let mut ready: BinaryHeap<_> = (0..needs.len()).filter(|at| open[*at] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(needs.len());
    while let Some(Reverse(at)) = ready.pop() {
        order.push(at);
        for &dependant in &dependants[at] {
            open[dependant] -= 1;
            if open[dependant] == 0 {
                ready.push(Reverse(dependant));
            }
        }
    }
    if order.len() == needs.len() { Ok(order) } else { Err(circles(needs, &open)) }
}

/// Follows, from each job that has no place, the first need that has none either: every such walk ends in a circle or
/// in one that was walked before.
fn circles(needs: &[Vec<usize>], open: &[usize]) -> Vec<Vec<usize>> {
    let mut walked_by: Vec<Option<usize>> = vec![None; needs.len()];
    let mut circles = Vec::new();
    for start in (0..needs.len()).filter(|at| open[*at] > 0) {
        let mut path = Vec::new();
        let mut at = start;
        while walked_by[at].is_none() {
            walked_by[at] = Some(start);
            path.push(at);
            let next = needs[at].iter().find(|need| open[**need] > 0);
            at = *next.expect("a job without a place needs one without a place");
        }
        if walked_by[at] == Some(start) {
            let begin = path.iter().position(|on_path| *on_path == at).unwrap_or(0);
            circles.push(path.split_off(begin));
        }
    }
    circles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_file_where_needs_allow_it() {
        assert_eq!(topological(&[vec![2], vec![], vec![1], vec![]]), Ok(vec![1, 2, 0, 3]));
        assert_eq!(topological(&[]), Ok(vec![]));
    }

    #[test]
    fn each_circle_is_named_once() {
        let needs = [vec![1], vec![2], vec![0], vec![0], vec![5], vec![4], vec![6]];
        assert_eq!(topological(&needs), Err(vec![vec![0, 1, 2], vec![4, 5], vec![6]]));
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let needs: Vec<Vec<usize>> =
            (0..10_000).map(|at| if at == 9_999 { vec![] } else { vec![at + 1] }).collect();
        assert_eq!(topological(&needs).map(|order| order[0]), Ok(9_999));
    }
}
