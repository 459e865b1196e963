# Stands in for nixpkgs, so that our flake can be evaluated without a network. It checks shapes and builds nothing real.
{
  outputs = { self }:
    let
      system = "x86_64-linux";
      drv = name: attributes: (derivation { inherit name system; builder = "/bin/false"; }) // attributes;
      lib = {
        importTOML = path: builtins.fromTOML (builtins.readFile path);
        fileset = { unions = paths: paths; toSource = { root, fileset }: builtins.seq (map builtins.pathExists fileset) "/stub"; };
        licenses.asl20 = { spdxId = "Apache-2.0"; };
        mkEnableOption = description: { inherit description; type = "bool"; };
        mkOption = option: option;
        mkIf = condition: content: if condition then content else { };
        types.package = "package";
      };
      pkgs = rec {
        inherit lib;
        python311 = drv "python311" { };
        zlib = drv "zlib" { };
        autoPatchelfHook = drv "autoPatchelfHook" { };
        makeWrapper = drv "makeWrapper" { };
        stdenv = {
          cc.cc.lib = drv "gcc-lib" { };
          mkDerivation = attributes:
            assert attributes ? pname && attributes ? version && attributes ? installPhase;
            drv "${attributes.pname}-${attributes.version}" { inherit (attributes) pname version meta; };
        };
        dockerTools.streamLayeredImage = { name, tag, config, created, contents, maxLayers }:
          assert config.User != "root" && config.User != "0";
          drv "${name}-${tag}-image" { inherit config created; };
        testers.runNixOSTest = test: assert test ? testScript; drv "vm-test-${test.name}" { };
        formats.toml = options: { type = "toml"; generate = name: content: drv name { inherit content; }; };
        callPackage = path: overrides:
          let f = import path; in f (builtins.intersectAttrs (builtins.functionArgs f) pkgs // overrides);
      };
    in
    {
      legacyPackages.${system} = pkgs;
      inherit lib;
    };
}
