# Casemate for Nix: a package, an OCI image, a NixOS module and a test of it in a virtual machine.
#   nix build 'git+file:.?dir=nix#image'
# Wheels are not fetched by Nix: `make image-fetch` collects them by image/wheels-cpu.lock, and pip checks each digest again.
{
  description = "Casemate: a hardened LLM appliance";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/8fd9daa3db09ced9700431c5b7ad0e8ba199b575";

  outputs = { self, nixpkgs }:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
      casemate = pkgs.callPackage ./package.nix { };
    in
    {
      packages.${system} = {
        default = casemate;
        image = pkgs.callPackage ./image.nix { inherit casemate; };
      };
      nixosModules.default = import ./module.nix { inherit casemate; };
      # Never run where this was written: it needs KVM and nixpkgs itself, which were not there.
      checks.${system}.vm = pkgs.testers.runNixOSTest (import ./vm-test.nix { module = self.nixosModules.default; });
    };
}
