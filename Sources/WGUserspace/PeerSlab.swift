/// The peers of a device, in place: noncopyable values that are reached by a small number and never move one by one.
///
/// The pointer is the slab's alone; a place holds a value exactly if `isLive` says so.
@safe struct PeerSlab: ~Copyable, @unchecked Sendable {
    private var base: UnsafeMutablePointer<Peer>
    private var capacity: Int
    private var isLive: [Bool] = []
    private var generations: [UInt32] = []
    private var freePlaces: [Int] = []

    init() {
        capacity = 4
        unsafe base = .allocate(capacity: capacity)
    }

    deinit {
        for place in isLive.indices where isLive[place] { unsafe (base + place).deinitialize(count: 1) }
        unsafe base.deallocate()
    }

    /// Live peers.
    var count: Int { isLive.count - freePlaces.count }
    /// Places, live or not; all are below.
    var places: Range<Int> { 0..<isLive.count }

    @inline(__always)
    func contains(_ place: Int) -> Bool { isLive.indices.contains(place) && isLive[place] }

    /// The peer at `place`, which must be live.
    subscript(place: Int) -> Peer {
        @inline(__always)
        unsafeAddress {
            precondition(contains(place), "no peer lives here")
            return unsafe UnsafePointer(base + place)
        }
        @inline(__always)
        unsafeMutableAddress {
            precondition(contains(place), "no peer lives here")
            return unsafe base + place
        }
    }

    /// Where `id` lives; `nil` if it was removed.
    func place(of id: PeerID) -> Int? {
        let place = Int(id.index)
        return contains(place) && generations[place] == id.generation ? place : nil
    }

    /// The ID that the next inserted peer gets.
    func nextID() -> PeerID {
        let place = freePlaces.last ?? isLive.count
        return PeerID(index: UInt32(place), generation: place < generations.count ? generations[place] : 0)
    }

    /// Takes a peer that was made with `nextID()`.
    ///
    /// - Returns: its place.
    mutating func insert(_ peer: consuming Peer) -> Int {
        if let place = freePlaces.popLast() {
            unsafe (base + place).initialize(to: peer)
            isLive[place] = true
            return place
        }
        let place = isLive.count
        if place == capacity { grow() }
        unsafe (base + place).initialize(to: peer)
        isLive.append(true)
        generations.append(0)
        return place
    }

    /// Drops the peer at `place`, which must be live.
    mutating func remove(at place: Int) {
        precondition(contains(place), "no peer lives here")
        unsafe (base + place).deinitialize(count: 1)
        isLive[place] = false
        generations[place] &+= 1
        freePlaces.append(place)
    }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<Peer>.allocate(capacity: capacity * 2)
        // Only called when no place is free.
        unsafe larger.moveInitialize(from: base, count: capacity)
        unsafe base.deallocate()
        unsafe base = larger
        capacity *= 2
    }
}
