//! Routes, lists of them, and where they lead.

use super::{HopPlace, Resolver, ViaPlace, place, start};
use crate::config::error::FaultKind;
use crate::config::legal::ValueError;
use crate::config::values;
use crate::config::{Hop, Place, Route, Via, file, list};
use serde_spanned::Spanned;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

impl Resolver<'_> {
    pub(super) fn route(&mut self, table: &Spanned<file::Route>, routes: &mut Vec<Route>) {
        let at = ("[[route]]", start(table));
        let table = table.get_ref();
        let given = self.need(at, "prefix", &table.prefix, ValueError::Prefix);
        let prefix = given.and_then(|prefix| self.parse("prefix", prefix, values::prefix));
        let vrf = self.vrf("vrf", &table.vrf);
        let kernel = self.get("kernel", &table.kernel, values::boolean).unwrap_or(true);
        let leak = self.get("leak", &table.leak, values::boolean).unwrap_or(false);
        let via = self.via_of(at.1, table.via.as_ref());
        let (Some(given), Some(prefix), Some((via, hops))) = (given, prefix, via) else { return };
        let (line, column) = self.source.place(start(given));
        let routes_here = routes.len()..routes.len() + 1;
        self.places.vias.push(ViaPlace { routes: routes_here, at: table.via.as_ref().map_or(at.1, start), hops });
        routes.push(Route { prefix, vrf, via, kernel, leak, place: Place { list: None, line, column } });
    }

    pub(super) fn route_list(&mut self, table: &Spanned<file::RouteList>, routes: &mut Vec<Route>) {
        let at = ("[[route_list]]", start(table));
        let table = table.get_ref();
        let given = self.need(at, "file", &table.file, ValueError::ListFile);
        let file = given.and_then(|file| self.parse("file", file, values::list_file));
        let vrf = self.vrf("vrf", &table.vrf);
        let kernel = self.get("kernel", &table.kernel, values::boolean).unwrap_or(true);
        let leak = self.get("leak", &table.leak, values::boolean).unwrap_or(false);
        let via = self.via_of(at.1, table.via.as_ref());
        let (Some(given), Some(file)) = (given, file) else { return };
        let folder = self.source.path.parent().unwrap_or(Path::new(""));
        // Also without a next hop: what is wrong with the lines is said at once.
        let list = match list::read(&Arc::from(folder.join(file)), &mut self.listed) {
            Ok(list) => list,
            Err(fault) => {
                self.faults.push((start(given), fault));
                return;
            }
        };
        let Some((via, hops)) = via else { return };
        self.places.vias.push(ViaPlace { routes: routes.len()..routes.len() + list.len(), at: start(given), hops });
        routes.extend(list.into_iter().map(|(prefix, place)| {
            let via = Arc::clone(&via);
            Route { prefix, vrf, via, kernel, leak, place }
        }));
    }

    /// The ways of the table at `at`, and where each is written.
    fn via_of(&mut self, at: usize, via: Option<&Spanned<file::Via>>) -> Option<(Arc<[Hop]>, Vec<HopPlace>)> {
        let Some(via) = via else { return self.wrong(at, FaultKind::Via) };
        let list = match via.get_ref() {
            file::Via::List(list) if list.is_empty() => return self.wrong(start(via), FaultKind::Via),
            file::Via::List(list) => list.as_slice(),
            _ => std::slice::from_ref(via),
        };
        // Each is looked at, also behind one that is wrong.
        let all: Vec<_> = list.iter().map(|one| self.via(one, list.len() == 1)).collect();
        let (hops, places): (Vec<_>, Vec<_>) = all.into_iter().collect::<Option<Vec<_>>>()?.into_iter().unzip();
        Some((hops.into(), places))
    }

    fn via(&mut self, via: &Spanned<file::Via>, alone: bool) -> Option<(Hop, HopPlace)> {
        let at = start(via);
        match via.get_ref() {
            file::Via::Word(word) => {
                let via = match word.as_str() {
                    "blackhole" => Via::Blackhole,
                    "unreachable" => Via::Unreachable,
                    _ => return self.wrong(at, FaultKind::Via),
                };
                if !alone {
                    return self.wrong(at, FaultKind::NotAlone { word: word.clone() });
                }
                Some((Hop { via, weight: 1 }, HopPlace { next_hop: at, on: at }))
            }
            file::Via::Hop(hop) => self.hop(hop, via.span()),
            file::Via::List(_) => self.wrong(at, FaultKind::Via),
        }
    }

    fn hop(&mut self, hop: &file::Hop, span: Range<usize>) -> Option<(Hop, HopPlace)> {
        let next_hop = place(&hop.next_hop).unwrap_or(span.start);
        let address = self.get("next_hop", &hop.next_hop, values::unicast);
        let interface = self.refer("interface", &hop.interface, |it, name| it.interfaces.find("interface", name));
        let tunnel = self.refer("tunnel", &hop.tunnel, |it, name| it.tunnels.find("tunnel", name));
        let group = self.refer("group", &hop.group, |it, name| it.groups.find("group", name));
        let weight = self.get("weight", &hop.weight, values::weight).unwrap_or(1);
        let both = |key, other| FaultKind::NotTogether { key, other };
        let (via, on) = match (&hop.group, &hop.tunnel, &hop.next_hop, &hop.interface) {
            (Some(_), Some(tunnel), _, _) => return self.wrong(start(tunnel), both("tunnel", "group")),
            (Some(_), None, Some(next_hop), _) => return self.wrong(start(next_hop), both("next_hop", "group")),
            (Some(_), None, None, Some(it)) => return self.wrong(start(it), both("interface", "group")),
            (Some(on), None, None, None) => (Via::Group(group?), start(on)),
            (None, Some(_), _, Some(interface)) => {
                return self.wrong(start(interface), both("interface", "tunnel"));
            }
            (None, Some(on), _, None) => (Via::Tunnel { tunnel: tunnel?, next_hop: address }, start(on)),
            (None, None, Some(_), _) => {
                (Via::NextHop { address: address?, interface }, place(&hop.interface).unwrap_or(span.start))
            }
            // Already said: the key that it had is unknown.
            (None, None, None, _) if self.faults.iter().any(|(at, _)| span.contains(at)) => return None,
            (None, None, None, _) => return self.wrong(span.start, FaultKind::Via),
        };
        Some((Hop { via, weight }, HopPlace { next_hop, on }))
    }
}
