import Proxy

@main
enum Program {
    static func main() async {
        await KakuremichiCommand.run()
    }
}
