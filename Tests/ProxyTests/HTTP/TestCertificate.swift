import NIOSSL

/// A self-signed certificate for app.example.com; made for these tests, used nowhere else.
enum TestCertificate {
    static func serverContext() throws -> NIOSSLContext {
        let certificate = try NIOSSLCertificate(bytes: Array(certificatePEM.utf8), format: .pem)
        let key = try NIOSSLPrivateKey(bytes: Array(keyPEM.utf8), format: .pem)
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: [.certificate(certificate)], privateKey: .privateKey(key))
        configuration.minimumTLSVersion = .tlsv12
        return try NIOSSLContext(configuration: configuration)
    }

    static func clientContext() throws -> NIOSSLContext {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.trustRoots = .certificates([try NIOSSLCertificate(bytes: Array(certificatePEM.utf8), format: .pem)])
        return try NIOSSLContext(configuration: configuration)
    }

    private static let certificatePEM = """
        -----BEGIN CERTIFICATE-----
        MIIBpzCCAU2gAwIBAgIUMEbPYed9TB4RmrDHh0XBvzwyRUkwCgYIKoZIzj0EAwIw
        GjEYMBYGA1UEAwwPYXBwLmV4YW1wbGUuY29tMCAXDTI2MTEyMjIzMjIyN1oYDzIx
        MjYxMDI5MjMyMjI3WjAaMRgwFgYDVQQDDA9hcHAuZXhhbXBsZS5jb20wWTATBgcq
        hkjOPQIBBggqhkjOPQMBBwNCAAQWdBnPz8uTuKamssG8dLBAEzrWTvByq54GXa+Y
        MOYG0Punj7YSW9Jyg7K1l6CgHi91Kynf1jdzIkbW6iaap6Wfo28wbTAdBgNVHQ4E
        FgQUsjVEpYu3H0Vn8MhA1OovpLTHfWUwHwYDVR0jBBgwFoAUsjVEpYu3H0Vn8MhA
        1OovpLTHfWUwDwYDVR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgg9hcHAuZXhhbXBs
        ZS5jb20wCgYIKoZIzj0EAwIDSAAwRQIgC5NmMx0AGHoPZ0MdtY5JsKZaiE4tzy1a
        0fLBY954yY4CIQDVi01y3bg2FAALph6Dn3riG4Nnkikq4ZPQNDo0oFAaNg==
        -----END CERTIFICATE-----
        """

    private static let keyPEM = """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgD+wDfsxl2+PXLqnD
        cLGDr66HXSSlWiGTTTaMZ2cF8gqhRANCAAQWdBnPz8uTuKamssG8dLBAEzrWTvBy
        q54GXa+YMOYG0Punj7YSW9Jyg7K1l6CgHi91Kynf1jdzIkbW6iaap6Wf
        -----END PRIVATE KEY-----
        """
}
