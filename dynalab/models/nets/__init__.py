"""The networks themselves: `nn.Module`s that the models' `build` functions import once torch is wanted."""
