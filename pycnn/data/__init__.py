"""Data sets, preprocessing, augmentation and the loader: `load` a `Split`, and iterate a `DataLoader` over a part."""

from pycnn.data.cifar import read_cifar10 as read_cifar10
from pycnn.data.dataset import ArrayDataset as ArrayDataset
from pycnn.data.dataset import Dataset as Dataset
from pycnn.data.dataset import Split as Split
from pycnn.data.errors import CorruptFile as CorruptFile
from pycnn.data.folder import FolderDataset as FolderDataset
from pycnn.data.folder import read_folder as read_folder
from pycnn.data.folder import read_image as read_image
from pycnn.data.idx import read_idx as read_idx
from pycnn.data.idx import read_mnist as read_mnist
from pycnn.data.imagenet import read_photograph as read_photograph
from pycnn.data.loader import DataLoader as DataLoader
from pycnn.data.sources import digits as digits
from pycnn.data.sources import load as load
from pycnn.data.transforms import CenterCrop as CenterCrop
from pycnn.data.transforms import ColorJitter as ColorJitter
from pycnn.data.transforms import Compose as Compose
from pycnn.data.transforms import CutOut as CutOut
from pycnn.data.transforms import Grey as Grey
from pycnn.data.transforms import HorizontalFlip as HorizontalFlip
from pycnn.data.transforms import Normalize as Normalize
from pycnn.data.transforms import RandomCrop as RandomCrop
from pycnn.data.transforms import Resize as Resize
from pycnn.data.transforms import Rgb as Rgb
from pycnn.data.transforms import Transform as Transform
