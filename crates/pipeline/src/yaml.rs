//! YAML 1.2 as a tree with places, bounded in bytes, depth and expansion.
//!
//! Anchors, aliases and `<<` are allowed. An aliased node is shared, not copied, but it counts each time it is used:
//! what the reader walks is what the limits are about. Everything in a file comes from people who are not trusted.

use std::collections::HashMap;
use std::collections::hash_map;
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};

use crate::diagnostic::{Fault, Place, Report, fault, shown};

/// Bytes in a pipeline file. 10,000 jobs of 400 bytes each.
pub const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Nested lists and mappings. The file's own shape needs 7.
pub const DEPTH_MAX: usize = 32;
/// Nodes once every alias is written out. 10,000 jobs with 50 nodes each.
pub const NODES_MAX: usize = 500_000;
/// Bytes of text once every alias is written out.
pub const EXPANDED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A value and where it stands.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Tree,
    cost: Cost,
}

/// What stands at a node. Scalars keep their text: `3.10` and `yes` mean what the key that takes them says.
#[derive(Debug)]
pub(crate) enum Tree {
    Null,
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>),
    /// An alias stands here that could not be followed, which has been reported.
    Unknown,
}

/// A key with its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) value: Rc<Node>,
}

/// What a node costs when every alias in it is written out.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    nodes: usize,
    bytes: usize,
    /// Levels of lists and mappings, so that nothing that walks the tree runs out of stack.
    height: usize,
}

impl Cost {
    fn leaf(bytes: usize) -> Cost {
        Cost { nodes: 1, bytes, height: 0 }
    }

    fn plus(self, other: Cost) -> Cost {
        Cost {
            nodes: self.nodes.saturating_add(other.nodes),
            bytes: self.bytes.saturating_add(other.bytes),
            height: self.height.max(other.height),
        }
    }

    fn inside_one_more(self) -> Cost {
        Cost { nodes: self.nodes.saturating_add(1), height: self.height + 1, ..self }
    }
}

/// Loading stops here; the reason has been reported.
struct Stop;

enum Frame {
    List { place: Place, anchor: usize, items: Vec<Rc<Node>> },
    Map { place: Place, anchor: usize, map: Mapping },
}

#[derive(Default)]
struct Mapping {
    entries: Vec<Entry>,
    index: HashMap<String, Place>,
    /// A key that waits for its value; one that is not text has been reported and is dropped with its value.
    key: Option<(Option<String>, Place)>,
    merged: Vec<Entry>,
}

struct Loader<'r, 'a> {
    report: &'r mut Report<'a>,
    frames: Vec<Frame>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    documents: usize,
    cost: Cost,
}

/// Reads one document. `None`: there is nothing in it, or nothing of it could be read.
pub(crate) fn load(source: &str, report: &mut Report) -> Option<Rc<Node>> {
    let mut loader = Loader {
        report,
        frames: Vec::new(),
        anchors: HashMap::new(),
        root: None,
        documents: 0,
        cost: Cost::default(),
    };
    for event in Parser::new_from_str(source) {
        let step = match event {
            Ok((event, span)) => loader.event(event, span),
            Err(error) => loader.syntax_error(&error),
        };
        if step.is_err() {
            break;
        }
    }
    loader.finish()
}

impl Loader<'_, '_> {
    fn event(&mut self, event: Event, span: Span) -> Result<(), Stop> {
        let place = place_of_span(span);
        match event {
            Event::DocumentStart(_) => self.document(place),
            Event::Alias(anchor) => self.alias(anchor, place),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let tag = self.refuse_tag(tag.as_deref(), place);
                let value = scalar(text.into_owned(), plain, tag);
                let cost = Cost::leaf(if let Tree::Scalar { text, .. } = &value { text.len() } else { 0 });
                self.spend(cost, place)?;
                self.place_node(Rc::new(Node { place, value, cost }), anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), place);
                self.open(Frame::List { place, anchor, items: Vec::new() })
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), place);
                self.open(Frame::Map { place, anchor, map: Mapping::default() })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn document(&mut self, place: Place) -> Result<(), Stop> {
        self.documents += 1;
        if self.documents == 1 {
            return Ok(());
        }
        self.report.error(
            place,
            fault(
                "a second document begins here",
                "a pipeline file is one YAML document, and `---` begins another",
                "delete the `---` and join both parts, or delete one of them",
            ),
        );
        Err(Stop)
    }

    /// Reports a tag, and answers it as it is written.
    fn refuse_tag(&mut self, tag: Option<&Tag>, place: Place) -> Option<String> {
        let tag = tag?;
        let text = if tag.is_yaml_core_schema() { format!("!!{}", tag.suffix) } else { tag.to_string() };
        self.report.error(
            place,
            fault(
                format!("the tag `{}` is not allowed", shown(&text)),
                "a word that begins with `!` is a YAML tag, and a pipeline file has none",
                "put quotes around the text if the `!` belongs to it: \"!docs/**\"",
            ),
        );
        Some(text)
    }

    fn open(&mut self, frame: Frame) -> Result<(), Stop> {
        let (Frame::List { place, .. } | Frame::Map { place, .. }) = frame;
        self.frames.push(frame);
        self.check_depth(0, place)?;
        self.spend(Cost::leaf(0), place)
    }

    fn check_depth(&mut self, height: usize, place: Place) -> Result<(), Stop> {
        if self.frames.len() + height <= DEPTH_MAX {
            return Ok(());
        }
        self.report.error(place, too_deep());
        Err(Stop)
    }

    fn close(&mut self) -> Result<(), Stop> {
        let (place, anchor, value) = match self.frames.pop() {
            Some(Frame::List { place, anchor, items }) => (place, anchor, Tree::List(items)),
            Some(Frame::Map { place, anchor, map }) => (place, anchor, Tree::Map(map.finish())),
            None => return Ok(()),
        };
        let children = match &value {
            Tree::List(items) => items.iter().fold(Cost::default(), |sum, item| sum.plus(item.cost)),
            Tree::Map(entries) => entries
                .iter()
                .fold(Cost::default(), |sum, entry| sum.plus(entry.value.cost).plus(key_cost(&entry.key))),
            Tree::Null | Tree::Scalar { .. } | Tree::Unknown => Cost::default(),
        };
        let cost = children.inside_one_more();
        self.place_node(Rc::new(Node { place, value, cost }), anchor)
    }

    fn alias(&mut self, anchor: usize, place: Place) -> Result<(), Stop> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            self.report.error(
                place,
                fault(
                    "an anchor contains itself",
                    "the alias stands inside the value that its anchor names, so it would never end",
                    "name a smaller part with the anchor, or write the value out",
                ),
            );
            return self.place_unknown(place);
        };
        self.check_depth(node.cost.height, place)?;
        self.spend(node.cost, place)?;
        self.place_node(node, 0)
    }

    /// What an alias stands for that cannot be followed. Whatever is around it is still read.
    fn place_unknown(&mut self, place: Place) -> Result<(), Stop> {
        let cost = Cost::leaf(0);
        self.spend(cost, place)?;
        self.place_node(Rc::new(Node { place, value: Tree::Unknown, cost }), 0)
    }

    fn spend(&mut self, cost: Cost, place: Place) -> Result<(), Stop> {
        self.cost = self.cost.plus(cost);
        if self.cost.nodes <= NODES_MAX && self.cost.bytes <= EXPANDED_BYTES_MAX {
            return Ok(());
        }
        let why = format!(
            "with every alias written out it has more than {NODES_MAX} values or {EXPANDED_BYTES_MAX} bytes of text"
        );
        let hint = "use fewer aliases of large values; put what all jobs share under `defaults`";
        self.report.error(place, fault("the file is too large once its aliases are expanded", why, hint));
        Err(Stop)
    }

    /// Hands a finished node to the list or mapping that is open.
    fn place_node(&mut self, node: Rc<Node>, anchor: usize) -> Result<(), Stop> {
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        match self.frames.last_mut() {
            None => self.root = Some(node),
            Some(Frame::List { items, .. }) => items.push(node),
            Some(Frame::Map { map, .. }) => match map.key.take() {
                None => map.key = Some((key_text(&node, self.report), node.place)),
                Some((Some(key), place)) if key == "<<" => return self.merge(node, place),
                Some((Some(key), place)) => map.add(Entry { key, place, value: node }, self.report),
                Some((None, _)) => {}
            },
        }
        Ok(())
    }

    /// `<<: *a` and `<<: [*a, *b]`: keys that the mapping lacks, the first source winning.
    fn merge(&mut self, node: Rc<Node>, place: Place) -> Result<(), Stop> {
        let sources = match &node.value {
            Tree::List(items) => items.iter().map(Rc::clone).collect(),
            _ => vec![node],
        };
        for source in sources {
            if matches!(source.value, Tree::Unknown) {
                continue;
            }
            let Tree::Map(entries) = &source.value else {
                let why = "`<<` takes over the keys of a mapping, and this is none";
                let hint = "write `<<: *name`, where `&name` stands before a mapping";
                self.report.error(place, fault("`<<` without a mapping", why, hint));
                continue;
            };
            // The alias itself has been paid for; walking the entries again has not.
            self.spend(Cost { nodes: entries.len(), ..Cost::default() }, place)?;
            if let Some(Frame::Map { map, .. }) = self.frames.last_mut() {
                map.merged.extend(entries.iter().cloned());
            }
        }
        Ok(())
    }

    fn syntax_error(&mut self, error: &ScanError) -> Result<(), Stop> {
        let place = Place { width: 1, ..place_of(*error.marker()) };
        // An error at the end of the file is told where the file still has a line.
        let place = Place { line: place.line.min(self.report.line_count()), ..place };
        if error.info().contains("unknown anchor") {
            return self.unknown_anchor(place);
        }
        let (place, fault) = match self.tab_near(place) {
            Some(tab) => (
                tab,
                fault(
                    "a tab indents this line",
                    "YAML indents with spaces only",
                    "replace each tab by two spaces; what stands below this line was not checked",
                ),
            ),
            None if error.info().contains("recursion limit") => (place, too_deep()),
            None => (
                place,
                fault(
                    "this is not YAML",
                    error.info(),
                    "look for a missing quote, bracket or `:` here or just above; what stands below was not checked",
                ),
            ),
        };
        self.report.error(place, fault);
        Err(Stop)
    }

    /// The parser has gone past such an alias when it says so, and goes on behind it.
    fn unknown_anchor(&mut self, place: Place) -> Result<(), Stop> {
        let why = "`*name` repeats the value before which `&name` stands, above it in the file";
        let hint = "put `&name` before that value, or quotes around the text";
        self.report.error(place, fault("this alias has no anchor", why, hint));
        self.place_unknown(place)
    }

    /// A tab in the indentation of this line or the next, where the parser may have noticed it too early.
    fn tab_near(&self, place: Place) -> Option<Place> {
        (place.line..=place.line + 1).find_map(|line| {
            let indent = self.report.line(line).chars().take_while(|c| c.is_whitespace());
            let at = indent.enumerate().find(|(_, c)| *c == '\t')?.0;
            Some(Place { line, column: at as u32 + 1, width: 1 })
        })
    }

    /// After a syntax error the open lists and mappings are closed, so that what was read is still checked.
    fn finish(mut self) -> Option<Rc<Node>> {
        self.report.complete = self.frames.is_empty();
        while !self.frames.is_empty() {
            if self.close().is_err() {
                return None;
            }
        }
        self.root
    }
}

impl Mapping {
    fn add(&mut self, entry: Entry, report: &mut Report) {
        match self.index.entry(entry.key.clone()) {
            hash_map::Entry::Vacant(slot) => {
                slot.insert(entry.place);
                self.entries.push(entry);
            }
            hash_map::Entry::Occupied(first) => {
                let why = format!("line {} has it already, and only one can hold", first.get().line);
                let what = format!("the key `{}` stands here twice", shown(&entry.key));
                report.error(entry.place, fault(what, why, "delete one of the two"));
            }
        }
    }

    fn finish(mut self) -> Vec<Entry> {
        for entry in self.merged {
            if let hash_map::Entry::Vacant(slot) = self.index.entry(entry.key.clone()) {
                slot.insert(entry.place);
                self.entries.push(entry);
            }
        }
        self.entries
    }
}

impl Entry {
    /// The key as a node, to be read like a value.
    pub(crate) fn key_node(&self) -> Node {
        let value = Tree::Scalar { text: self.key.clone(), plain: true };
        Node { place: self.place, value, cost: Cost::leaf(self.key.len()) }
    }
}

impl Node {
    /// The same place with another text.
    pub(crate) fn with_text(&self, text: &str) -> Node {
        let value = Tree::Scalar { text: text.to_owned(), plain: true };
        Node { place: self.place, value, cost: Cost::leaf(text.len()) }
    }
}

/// `!docs/**` without quotes is a tag before nothing; taken as the text that was meant, it is reported once.
fn scalar(text: String, plain: bool, tag: Option<String>) -> Tree {
    let null = plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
    match tag {
        Some(tag) if null => Tree::Scalar { text: tag, plain },
        _ if null => Tree::Null,
        _ => Tree::Scalar { text, plain },
    }
}

fn too_deep() -> Fault {
    let why = format!("a pipeline file has at most {DEPTH_MAX} levels, aliases written out");
    let hint = "write fewer lists and mappings inside each other; no key needs more than 7";
    fault("lists and mappings are nested too deeply", why, hint)
}

fn key_cost(key: &str) -> Cost {
    Cost::leaf(key.len())
}

fn key_text(node: &Node, report: &mut Report) -> Option<String> {
    if let Tree::Scalar { text, .. } = &node.value {
        return Some(text.clone());
    }
    if matches!(node.value, Tree::Unknown) {
        return None;
    }
    let why = "a key is a word; lists, mappings and nothing at all cannot be one";
    report.error(node.place, fault("a key that is not text", why, "write a word before the `:`"));
    None
}

/// The part of a span on its first line; a block that spans several lines is marked by its first character.
fn place_of_span(span: Span) -> Place {
    let (place, end) = (place_of(span.start), place_of(span.end));
    let width = if end.line == place.line { end.column.saturating_sub(place.column) } else { 1 };
    Place { width: width.max(1), ..place }
}

fn place_of(marker: Marker) -> Place {
    Place { line: marker.line().max(1) as u32, column: marker.col() as u32 + 1, width: 1 }
}
