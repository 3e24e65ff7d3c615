import Inet

/// Cryptokey routing: which peer an inner address belongs to, by the longest prefix. One table for the whole device, so that
/// a prefix has one owner (the last writer) and a peer cannot speak for a more specific prefix of another's.
///
/// A path-compressed binary trie for each family, in one flat array of nodes; a look-up follows at most one node for each
/// bit, allocates nothing and counts no references.
///
/// Source: WG §2; Linux `allowedips.c`.
package struct AllowedIPs {
    private struct Node {
        /// The bits of the prefix, left-aligned in 128; those after `length` are zero.
        var high: UInt64
        var low: UInt64
        var length: UInt8
        /// The owner's place in the slab, or `none`: then the node only branches.
        var peer: UInt32
        var zero: UInt32
        var one: UInt32
    }

    private static let none = UInt32.max

    private var nodes: [Node] = []
    private var freeNodes: [UInt32] = []
    private var rootV4 = none
    private var rootV6 = none

    package init() {}

    /// How many nodes the table has.
    package var nodeCount: Int { nodes.count - freeNodes.count }

    /// The peer that owns the longest prefix with `address` in it.
    @inline(__always)
    package func lookup(_ address: IPAddress) -> Int? {
        let (high, low) = Self.bits(address)
        let width = address.bitWidth
        var best = Self.none
        var index = address.family == .v4 ? rootV4 : rootV6
        while index != Self.none {
            let node = nodes[Int(index)]
            let length = Int(node.length)
            guard Self.commonLength(high ^ node.high, low ^ node.low) >= length else { break }
            if node.peer != Self.none { best = node.peer }
            guard length < width else { break }
            index = Self.bit(length, high, low) ? node.one : node.zero
        }
        return best == Self.none ? nil : Int(best)
    }

    /// Who owns exactly `prefix`.
    package func owner(of prefix: IPPrefix) -> Int? {
        let (high, low) = Self.bits(prefix.address)
        var index = prefix.address.family == .v4 ? rootV4 : rootV6
        while index != Self.none {
            let node = nodes[Int(index)]
            let length = Int(node.length)
            guard length <= prefix.length, Self.commonLength(high ^ node.high, low ^ node.low) >= length else { return nil }
            if length == prefix.length { return node.peer == Self.none ? nil : Int(node.peer) }
            index = Self.bit(length, high, low) ? node.one : node.zero
        }
        return nil
    }

    /// Gives `prefix` to `peer`.
    ///
    /// - Returns: the peer that had it.
    @discardableResult
    package mutating func insert(_ prefix: IPPrefix, peer: Int) -> Int? {
        let (high, low) = Self.bits(prefix.address)
        let length = prefix.length
        var parent: UInt32?
        var index = root(prefix.address.family)
        while index != Self.none {
            let node = nodes[Int(index)]
            let nodeLength = Int(node.length)
            let common = min(Self.commonLength(high ^ node.high, low ^ node.low), min(length, nodeLength))
            if common == nodeLength {
                if nodeLength == length {
                    nodes[Int(index)].peer = UInt32(peer)
                    return node.peer == Self.none ? nil : Int(node.peer)
                }
                parent = index
                index = Self.bit(nodeLength, high, low) ? node.one : node.zero
                continue
            }
            // The node's prefix leaves ours: put what both have in common above it.
            let leaf = makeNode(high, low, length, peer: UInt32(peer))
            let top: UInt32
            if common == length {
                top = leaf
            } else {
                let (commonHigh, commonLow) = Self.masked(high, low, common)
                top = makeNode(commonHigh, commonLow, common, peer: Self.none)
                setChild(of: top, Self.bit(common, high, low), leaf)
            }
            setChild(of: top, Self.bit(common, node.high, node.low), index)
            attach(top, under: parent, prefix.address.family, high, low)
            return nil
        }
        let leaf = makeNode(high, low, length, peer: UInt32(peer))
        attach(leaf, under: parent, prefix.address.family, high, low)
        return nil
    }

    /// Takes `prefix` away from `peer`; nothing happens if another one owns it.
    package mutating func remove(_ prefix: IPPrefix, peer: Int) {
        let (high, low) = Self.bits(prefix.address)
        var grandparent: UInt32?
        var parent: UInt32?
        var index = root(prefix.address.family)
        while index != Self.none {
            let node = nodes[Int(index)]
            let length = Int(node.length)
            guard length <= prefix.length, Self.commonLength(high ^ node.high, low ^ node.low) >= length else { return }
            if length == prefix.length { break }
            grandparent = parent
            parent = index
            index = Self.bit(length, high, low) ? node.one : node.zero
        }
        guard index != Self.none, nodes[Int(index)].peer == UInt32(peer) else { return }
        nodes[Int(index)].peer = Self.none
        collapse(index, under: parent, prefix.address.family, high, low)
        if let parent { collapse(parent, under: grandparent, prefix.address.family, high, low) }
    }

    // MARK: - Nodes

    /// Takes a node out that owns nothing and does not branch.
    private mutating func collapse(_ index: UInt32, under parent: UInt32?, _ family: IPAddress.Family, _ high: UInt64, _ low: UInt64) {
        let node = nodes[Int(index)]
        guard node.peer == Self.none, node.zero == Self.none || node.one == Self.none else { return }
        attach(node.zero == Self.none ? node.one : node.zero, under: parent, family, high, low)
        freeNodes.append(index)
    }

    /// Puts `index` where the path of the bits `high`, `low` leads from `parent`.
    private mutating func attach(_ index: UInt32, under parent: UInt32?, _ family: IPAddress.Family, _ high: UInt64, _ low: UInt64) {
        if let parent {
            setChild(of: parent, Self.bit(Int(nodes[Int(parent)].length), high, low), index)
        } else if family == .v4 {
            rootV4 = index
        } else {
            rootV6 = index
        }
    }

    private mutating func setChild(of parent: UInt32, _ bit: Bool, _ child: UInt32) {
        if bit { nodes[Int(parent)].one = child } else { nodes[Int(parent)].zero = child }
    }

    private mutating func makeNode(_ high: UInt64, _ low: UInt64, _ length: Int, peer: UInt32) -> UInt32 {
        let node = Node(high: high, low: low, length: UInt8(length), peer: peer, zero: Self.none, one: Self.none)
        if let index = freeNodes.popLast() {
            nodes[Int(index)] = node
            return index
        }
        nodes.append(node)
        return UInt32(nodes.count - 1)
    }

    private func root(_ family: IPAddress.Family) -> UInt32 { family == .v4 ? rootV4 : rootV6 }

    // MARK: - Bits

    @inline(__always)
    private static func bits(_ address: IPAddress) -> (high: UInt64, low: UInt64) {
        address.family == .v4 ? (address.low << 32, 0) : (address.high, address.low)
    }

    /// How many leading bits are equal, given the exclusive or of both.
    @inline(__always)
    private static func commonLength(_ high: UInt64, _ low: UInt64) -> Int {
        high != 0 ? high.leadingZeroBitCount : 64 + low.leadingZeroBitCount
    }

    @inline(__always)
    private static func bit(_ position: Int, _ high: UInt64, _ low: UInt64) -> Bool {
        position < 64
            ? (high << UInt64(position)) >> 63 == 1 : position < 128 && (low << UInt64(position - 64)) >> 63 == 1
    }

    private static func masked(_ high: UInt64, _ low: UInt64, _ length: Int) -> (UInt64, UInt64) {
        if length == 0 { return (0, 0) }
        if length <= 64 { return (high & (UInt64.max << UInt64(64 - length)), 0) }
        return (high, low & (UInt64.max << UInt64(128 - length)))
    }
}
